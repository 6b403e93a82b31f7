package proxy

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// A line says the same of both versions, on either side: the body's bytes, trailers and the status of gRPC among it.
func TestAccessLogOfVersions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	versions(t, func(s *model.Snapshot, _ *model.Rule) {
		s.Settings.AccessLog = &model.AccessLog{File: file, Format: "%PROTOCOL% %RESPONSE_CODE% %REQ(:PATH)% %BYTES_RECEIVED% %RESP(X-App)% %TRAILER(X-End)% %GRPC_STATUS% %UPSTREAM_HOST% %RESPONSE_CODE_DETAILS%"}
	}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-End, Grpc-Status")
		w.Header().Set("X-App", "yes")
		_, _ = io.WriteString(w, "some")
		w.Header().Set("X-End", "over")
		w.Header().Set("Grpc-Status", "5")
	}, func(t *testing.T, c *http.Client, p *Proxy, client, _ int) {
		before := strings.Count(read(t, file), "\n")
		r := request("POST", "http://app/say?what", strings.NewReader("hello"))
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
		if res, body := fetch(t, c, r); res.StatusCode != 200 || body != "some" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		eventually(t, "the line", func() bool { return strings.Count(read(t, file), "\n") == before+1 })
		lines := strings.Split(strings.TrimSpace(read(t, file)), "\n")
		want := fmt.Sprintf("%s 200 /say?what 5 yes over NotFound %s via_upstream", map[int]string{1: "HTTP/1.1", 2: "HTTP/2"}[client], p.Snapshot().Clusters[0].Endpoints[0].Address)
		if got := lines[len(lines)-1]; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
