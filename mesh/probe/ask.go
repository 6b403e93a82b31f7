package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// userAgent says in an application's log who asks.
const userAgent = "outrider-probe/1.0"

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 10 << 10

// ask asks once. nil is a good answer; an error says in one sentence what was wrong. ctx bounds the time.
func ask(ctx context.Context, p *model.Probe) error {
	var err error
	switch {
	case p.HTTP != nil:
		err = askHTTP(ctx, p.Address, p.HTTP)
	case p.GRPC != nil:
		err = askGRPC(ctx, p.Address, p.GRPC)
	case p.Exec != nil:
		err = askExec(ctx, p.Exec)
	default:
		err = askTCP(ctx, p.Address)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %s", describe(p), p.Timeout)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", describe(p), err)
	}
	return nil
}

// describe names the question for people: of a command its program only, as arguments may hold a password.
func describe(p *model.Probe) string {
	switch {
	case p.HTTP != nil && p.HTTP.TLS:
		return "GET https://" + p.Address + p.HTTP.Path
	case p.HTTP != nil:
		return "GET http://" + p.Address + p.HTTP.Path
	case p.GRPC != nil:
		return "gRPC health of " + p.Address + " " + p.GRPC.Service
	case p.Exec != nil:
		return "command " + p.Exec.Command[0]
	}
	return "connection to " + p.Address
}

func askTCP(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// transport opens one connection, to address whatever the URL says, for one exchange.
func transport(address string) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
}

func askHTTP(ctx context.Context, address string, h *model.HTTPProbe) error {
	t := transport(address)
	defer t.CloseIdleConnections()
	scheme := "http"
	if h.TLS {
		scheme = "https"
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the question is whether it answers, not who it is
	}
	client := http.Client{Transport: t, CheckRedirect: sameHost}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+h.Host+h.Path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", userAgent)
	own := false // a User-Agent of the probe's
	for _, f := range h.Headers {
		switch {
		case strings.EqualFold(f.Name, "Host"):
			r.Host = f.Value
		case strings.EqualFold(f.Name, "User-Agent") && !own:
			own = true
			r.Header.Set(f.Name, f.Value)
		default:
			r.Header.Add(f.Name, f.Value)
		}
	}
	res, err := client.Do(r)
	if err != nil {
		return plain(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	// An application that breaks off its answer has answered nevertheless: the status is what counts.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	return nil
}

// sameHost follows redirects within the host that was asked; one that leads away is an answer (Kubernetes).
func sameHost(r *http.Request, before []*http.Request) error {
	if r.URL.Host != before[0].URL.Host || r.URL.Scheme != before[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	if len(before) >= 10 {
		return errors.New("it redirects more than 10 times")
	}
	return nil
}

// plain takes what net/http adds to an error: the question is named already.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// askGRPC calls grpc.health.v1.Health/Check over HTTP/2 without TLS. Its two messages have one field each, so they are
// written and read here; a library for them would be a large part of a sidecar.
func askGRPC(ctx context.Context, address string, g *model.GRPCProbe) error {
	t := transport(address)
	defer t.CloseIdleConnections()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/grpc.health.v1.Health/Check", bytes.NewReader(healthRequest(g.Service)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	r.Header.Set("User-Agent", userAgent)
	res, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	status, message := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if status == "" {
		status, message = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	switch {
	case status == "":
		return errors.New("the answer has no gRPC status")
	case status != "0" && message != "":
		return fmt.Errorf("gRPC status %s: %s", status, message)
	case status != "0":
		return fmt.Errorf("gRPC status %s", status)
	}
	return serving(body)
}

// healthRequest is a HealthCheckRequest in gRPC's frame: string service = 1.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = protowire.AppendTag(message, 1, protowire.BytesType)
		message = protowire.AppendString(message, service)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// servingStatuses are the names of HealthCheckResponse's enum.
var servingStatuses = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// serving reads a HealthCheckResponse in gRPC's frame, enum status = 1: it must say SERVING.
func serving(frame []byte) error {
	if len(frame) < 5 || frame[0] != 0 || int(binary.BigEndian.Uint32(frame[1:])) != len(frame)-5 {
		return errors.New("the answer is no message of gRPC")
	}
	status := uint64(0)
	for message := frame[5:]; len(message) > 0; {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errors.New("the answer is no HealthCheckResponse")
		}
		message = message[n:]
		if number == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(message)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return errors.New("the answer is no HealthCheckResponse")
		}
		message = message[n:]
	}
	switch {
	case status == 1:
		return nil
	case status < uint64(len(servingStatuses)):
		return errors.New("it says " + servingStatuses[status])
	}
	return fmt.Errorf("it says %d", status)
}
