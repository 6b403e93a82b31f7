package standin

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Behaviour is how a stand-in misbehaves. The zero Behaviour is none of it.
type Behaviour struct {
	// Status is answered instead of success; 0 leaves success. It is an HTTP status, 200 to 599, or a gRPC status, 1 to
	// 16; where a request speaks the other protocol, it gets what the status stands for there.
	Status int
	// Ratio is the share of requests that misbehave, above 0 and at most 1; 0 stands for 1.
	Ratio float64
	// Delay is how long an answer is held back; not negative.
	Delay time.Duration
}

// ParseBehaviour reads settings like "status=503 ratio=0.5 delay=50ms"; an empty text is the zero Behaviour.
func ParseBehaviour(text string) (Behaviour, error) {
	var b Behaviour
	for setting := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return Behaviour{}, fmt.Errorf("cannot read %q: settings are status=503, ratio=0.5 and delay=50ms", setting)
		}
		if err := b.Set(name, value); err != nil {
			return Behaviour{}, err
		}
	}
	return b, nil
}

// Set gives b one setting: status, ratio or delay.
func (b *Behaviour) Set(name, value string) error {
	switch name {
	case "status":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 16 && n < 200 || n > 599 {
			return fmt.Errorf("cannot read status=%s: it is an HTTP status from 200 to 599, or a gRPC status from 1 to 16", value)
		}
		b.Status = n
	case "ratio":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f > 0 && f <= 1) {
			return fmt.Errorf("cannot read ratio=%s: it is a number above 0 and at most 1", value)
		}
		b.Ratio = f
	case "delay":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return fmt.Errorf("cannot read delay=%s: it is a time like 50ms or 1.5s", value)
		}
		b.Delay = d
	default:
		return fmt.Errorf("cannot read %s=%s: settings are status=503, ratio=0.5 and delay=50ms", name, value)
	}
	return nil
}

// String writes b as ParseBehaviour reads it.
func (b Behaviour) String() string {
	var parts []string
	if b.Status != 0 {
		parts = append(parts, "status="+strconv.Itoa(b.Status))
	}
	if b.Ratio != 0 {
		parts = append(parts, "ratio="+strconv.FormatFloat(b.Ratio, 'g', -1, 64))
	}
	if b.Delay != 0 {
		parts = append(parts, "delay="+b.Delay.String())
	}
	return strings.Join(parts, " ")
}

// strikes says whether this request is one that misbehaves.
func (b Behaviour) strikes() bool {
	if b.Status == 0 && b.Delay == 0 {
		return false
	}
	return b.Ratio == 0 || b.Ratio >= 1 || rand.Float64() < b.Ratio
}

// names are the gRPC statuses as the protocol writes them, by number.
var names = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// codeName is a gRPC status as the protocol writes it.
func codeName(c codes.Code) string {
	if int(c) < len(names) {
		return names[c]
	}
	return strconv.Itoa(int(c))
}

// http is the status of HTTP that b answers with. A gRPC status becomes the one that google.rpc.Code names for it.
func (b Behaviour) http() int {
	switch codes.Code(b.Status) {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return 499 // client closed request; net/http has no name for it
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return http.StatusInternalServerError
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return b.Status
}

// grpc is the status of gRPC that b answers with. An HTTP status becomes the one that a gRPC client makes of an answer
// with that status and no grpc-status (gRPC's http-grpc-status-mapping); 200 is OK.
func (b Behaviour) grpc() codes.Code {
	switch b.Status {
	case http.StatusOK:
		return codes.OK
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	if b.Status < 200 {
		return codes.Code(b.Status)
	}
	return codes.Unknown
}
