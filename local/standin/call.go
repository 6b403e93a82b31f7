package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// maxNested bounds the answers that are nested.
const maxNested = 1 << 20

// reasonHeader says why the mesh itself answered.
const reasonHeader = "X-Outrider-Reason"

// ParseCalls reads the annotation outrider.dev/calls: URLs with commas or spaces between them. They begin with http://
// or https://, or with grpc://, where the path is a method, /package.Service/Method, or empty for Echo's own.
func ParseCalls(text string) ([]string, error) {
	calls := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	for _, c := range calls {
		u, err := url.Parse(c)
		switch {
		case err != nil || u.Host == "":
		case u.Scheme == "http" || u.Scheme == "https":
			continue
		case u.Scheme == "grpc":
			if u.RawQuery != "" || u.User != nil || u.Path != "" && u.Path != "/" && strings.Count(strings.Trim(u.Path, "/"), "/") != 1 {
				return nil, fmt.Errorf("cannot read %q: gRPC is called like grpc://reviews:9080/ or grpc://reviews:9080/package.Service/Method", c)
			}
			continue
		}
		return nil, fmt.Errorf("cannot read %q: calls are URLs like http://reviews:9080/ or grpc://reviews:9080/", c)
	}
	return calls, nil
}

// call calls target on behalf of a request that has the header, and appends the answer: the answer itself where it is
// JSON with status 200 or Echo's, else an object that says what came instead.
func (h *handler) call(ctx context.Context, b []byte, header http.Header, target string) []byte {
	select {
	case h.app.calling <- struct{}{}:
		defer func() { <-h.app.calling }()
	default:
		err := fmt.Errorf("cannot call: %d calls are under way already; do workloads call each other in a circle?", maxCalls)
		return appendFailure(b, target, 0, "", "", "error", err.Error())
	}
	if strings.HasPrefix(target, "grpc://") {
		return h.invoke(ctx, b, header, target)
	}
	status, reason, body, err := h.fetch(ctx, header, target)
	switch {
	case err != nil:
		return appendFailure(b, target, status, "", "", "error", err.Error())
	case status == http.StatusOK && json.Valid(body):
		return append(b, strings.TrimSpace(string(body))...)
	}
	return appendFailure(b, target, status, "", reason, "body", strings.TrimSpace(string(body)))
}

// appendFailure appends what came instead of an answer; code and reason are left out where they are empty.
func appendFailure(b []byte, target string, status int, code, reason, name, what string) []byte {
	b = append(b, `{"url":`...)
	b = appendString(b, target)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	if code != "" {
		b = append(b, `,"code":`...)
		b = appendString(b, code)
	}
	if reason != "" {
		b = append(b, `,"reason":`...)
		b = appendString(b, reason)
	}
	b = append(b, ',')
	b = appendString(b, name)
	b = append(b, ':')
	b = appendString(b, what)
	return append(b, '}')
}

// fetch gets a URL by HTTP.
func (h *handler) fetch(ctx context.Context, header http.Header, target string) (status int, reason string, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, "", nil, err
	}
	for _, name := range propagated {
		if v := header[name]; v != nil {
			req.Header[name] = v
		}
	}
	resp, err := h.app.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxNested+1))
	if err == nil && len(body) > maxNested {
		err = fmt.Errorf("the answer is longer than %d bytes", maxNested)
	}
	return resp.StatusCode, resp.Header.Get(reasonHeader), body, err
}

// invoke calls a method of gRPC with an empty message. Of another method's answer than Echo's it cannot tell more than
// the status, and which stand-in gave it.
func (h *handler) invoke(ctx context.Context, b []byte, header http.Header, target string) []byte {
	u, err := url.Parse(target)
	if err != nil {
		return appendFailure(b, target, 0, "", "", "error", err.Error())
	}
	line, err := h.app.lines.to(u.Host)
	if err != nil {
		return appendFailure(b, target, 0, "", "", "error", err.Error())
	}
	sent := metadata.MD{}
	for _, name := range propagated {
		if v := header[name]; v != nil {
			sent[strings.ToLower(name)] = v
		}
	}
	method, answer := u.Path, proto.Message(new(emptypb.Empty))
	echoes := strings.Trim(method, "/") == "" || method == echoMethod
	if echoes {
		method, answer = echoMethod, schema().newResponse()
	}
	var head, tail metadata.MD
	err = line.Invoke(metadata.NewOutgoingContext(ctx, sent), method, new(emptypb.Empty), answer,
		grpc.CallAuthority(u.Host), grpc.Header(&head), grpc.Trailer(&tail), grpc.MaxCallRecvMsgSize(maxNested))
	s := status.Convert(err)
	switch {
	case err != nil:
		reason := metadata.Join(head, tail).Get(reasonHeader)
		return appendFailure(b, target, int(s.Code()), codeName(s.Code()), strings.Join(reason, ", "), "error", s.Message())
	case echoes:
		return schema().appendJSON(b, answer.ProtoReflect())
	}
	return appendFailure(b, target, int(codes.OK), codeName(codes.OK), "", "instance", strings.Join(head.Get(instanceHeader), ", "))
}

// lines are the connections that gRPC is called through: one to the sidecar, or one to each host where there is none.
type lines struct {
	proxy string // host:port of the sidecar

	mu   sync.Mutex
	open map[string]*grpc.ClientConn // by host:port; nil once closed
}

// to returns the connection to a URL's host, which dials when it is called through.
func (l *lines) to(host string) (*grpc.ClientConn, error) {
	target := l.proxy
	if target == "" {
		target = host
		if _, _, err := net.SplitHostPort(host); err != nil {
			target = net.JoinHostPort(strings.Trim(host, "[]"), "80")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil, fmt.Errorf("cannot call %s: the stand-in has ended", host)
	}
	if conn := l.open[target]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // the sidecar is dialled, whatever the environment says
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(time.Minute),
		// A workload that comes back is found soon.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("cannot call %s: %w", host, err)
	}
	l.open[target] = conn
	return conn, nil
}

// close closes all connections for good.
func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.open {
		_ = conn.Close() // says only that it was closed before
	}
	l.open = nil
}
