package proxy

import (
	"flag"
	"fmt"
	"strconv"
	"time"
)

// Flags adds a flag for each of the limits to f, which sets it in l: one definition for every program that runs proxies.
// A value out of range is refused as f is parsed.
func (l *Limits) Flags(f *flag.FlagSet) {
	*l = l.orDefault()
	f.Var(&count{at: &l.Head.Head, least: leastHead, most: mostHead}, "max-head-bytes", "how many `bytes` the head of a request or an answer may have")
	f.Var(&count{at: &l.Head.Fields, least: 1, most: mostHead}, "max-header-fields", "how many header `fields` it may have")
	f.Var(&count{at: &l.Head.Field, least: leastHead, most: mostHead}, "max-header-bytes", "how many `bytes` one header field may have")
	f.Var(&count{at: &l.Head.Line, least: leastHead, most: mostHead}, "max-line-bytes", "how many `bytes` a request line may have")
	f.BoolVar(&l.Underscores, "allow-underscores", false, "let requests at gateways have _ in the names of header fields")
	f.Var(&span{at: &l.HeadTimeout}, "head-timeout", "how long a head, a TLS handshake, or a connection's first byte may take to arrive, as a `duration`")
	f.Var(&span{at: &l.Idle}, "idle-timeout", "how long a client's connection may be idle, as a `duration`")
	f.Var(&span{at: &l.StreamIdle, endless: true}, "stream-idle-timeout",
		"how long a client may hold up an exchange, by not sending its body or not reading its answer, as a `duration`; 0 is without end")
	f.Var(&count{at: &l.Connections, least: 1, most: 1 << 30}, "max-connections", "how many `connections` of clients one listener takes")
	f.Var(&streams{at: &l.Streams}, "max-streams", "how many `streams` a client may have open at a time on one connection of HTTP/2")
}

// Below leastHead no request would fit; above mostHead no peer has a use for it, and lengths stay far from overflowing.
const (
	leastHead = 64
	mostHead  = 64 << 20
)

// count is the flag of a number.
type count struct {
	at          *int
	least, most int
}

func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < c.least || n > c.most {
		return fmt.Errorf("write a whole number from %d to %d", c.least, c.most)
	}
	*c.at = n
	return nil
}

func (c *count) String() string {
	if c.at == nil { // package flag asks the zero value
		return ""
	}
	return strconv.Itoa(*c.at)
}

// span is the flag of a time.
type span struct {
	at      *time.Duration
	endless bool // 0 means that there is no limit, which Limits calls -1
}

func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err == nil && d > 0:
		*s.at = d
	case err == nil && d == 0 && s.endless:
		*s.at = -1
	default:
		return fmt.Errorf("write a time above 0, such as 10s")
	}
	return nil
}

func (s *span) String() string {
	switch {
	case s.at == nil:
		return ""
	case *s.at < 0:
		return "0s"
	}
	return s.at.String()
}

// streams is the flag of SETTINGS_MAX_CONCURRENT_STREAMS.
type streams struct{ at *uint32 }

func (s *streams) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("write a whole number from 1 to %d", 1<<31-1)
	}
	*s.at = uint32(n)
	return nil
}

func (s *streams) String() string {
	if s.at == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*s.at), 10)
}
