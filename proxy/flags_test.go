package proxy

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/wire/http1"
)

func TestLimitFlags(t *testing.T) {
	parse := func(args ...string) (Limits, error) {
		var l Limits
		f := flag.NewFlagSet("test", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		l.Flags(f)
		return l, f.Parse(args)
	}
	if l, err := parse(); err != nil || l.orDefault() != (Limits{Head: http1.DefaultLimits}).orDefault() {
		t.Errorf("without flags: %+v, %v", l, err)
	}
	l, err := parse("--max-head-bytes=1000", "--max-header-fields=7", "--max-header-bytes=200", "--max-line-bytes=300", "--allow-underscores",
		"--head-timeout=1s", "--idle-timeout=2s", "--stream-idle-timeout=0", "--max-connections=9", "--max-streams=11")
	want := Limits{
		Head: http1.Limits{Head: 1000, Fields: 7, Field: 200, Line: 300}, Underscores: true,
		HeadTimeout: time.Second, Idle: 2 * time.Second, StreamIdle: -1, Connections: 9, Streams: 11,
	}
	if err != nil || l != want {
		t.Errorf("got %+v, %v; want %+v", l, err, want)
	}
	refused := func(arg, say string) {
		t.Helper()
		if _, err := parse(arg); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	refused("--max-head-bytes=0", "from 64 to 67108864")
	refused("--max-header-fields=-1", "from 1 ")
	refused("--max-header-bytes=8k", "whole number")
	refused("--max-line-bytes=99999999999999999999", "from 64")
	refused("--max-connections=0", "from 1 ")
	refused("--max-streams=2147483648", "from 1 to 2147483647")
	refused("--max-streams=0", "from 1 ")
	refused("--head-timeout=10", "such as 10s")
	refused("--head-timeout=0", "above 0")
	refused("--idle-timeout=0s", "above 0")
	refused("--stream-idle-timeout=-1s", "such as 10s")
}
