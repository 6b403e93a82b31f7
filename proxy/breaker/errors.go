package breaker

import (
	"fmt"
	"strconv"
	"strings"
)

// Errors tells which answers count as errors of the target: the errors field of a CircuitBreaker.
type Errors struct {
	statuses [10]uint64 // bit n%64 of word n/64: HTTP status n
	codes    uint32     // bit n: gRPC status n
}

var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

const deadlineExceeded = 4

// What counts as an error where nothing is said.
var (
	DefaultStatuses     = []string{"5xx"}
	DefaultGRPCStatuses = []string{"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
)

// ParseErrors reads HTTP statuses ("503", "5xx") and gRPC ones (their names or numbers). A nil list takes the defaults.
func ParseErrors(statuses, grpcStatuses []string) (Errors, error) {
	var e Errors
	if statuses == nil {
		statuses = DefaultStatuses
	}
	if grpcStatuses == nil {
		grpcStatuses = DefaultGRPCStatuses
	}
	for _, s := range statuses {
		if class, ok := strings.CutSuffix(s, "xx"); ok && len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
			for n := range 100 {
				e.add(int(class[0]-'0')*100 + n)
			}
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 100 || n > 599 {
			return Errors{}, fmt.Errorf("statuses: %q is no HTTP status: write one from 100 to 599, or a class such as 5xx", s)
		}
		e.add(n)
	}
	for _, s := range grpcStatuses {
		n, err := grpcCode(s)
		if err != nil {
			return Errors{}, err
		}
		e.codes |= 1 << n
	}
	return e, nil
}

func grpcCode(s string) (int, error) {
	for n, name := range grpcCodes {
		if n != 0 && (s == name || s == strconv.Itoa(n)) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("grpcStatuses: %q is no gRPC status that can be an error: write a name such as UNAVAILABLE, or its number", s)
}

func (e *Errors) add(status int) { e.statuses[status/64] |= 1 << (status % 64) }

// HTTP returns the outcome that an answer with the status is: an error, the client's own error (every other 4xx), or a success.
func (e *Errors) HTTP(status int) Outcome {
	switch {
	case status >= 0 && status < 600 && e.statuses[status/64]&(1<<(status%64)) != 0:
		return Failed
	case status >= 400 && status < 500:
		return ClientError
	}
	return Succeeded
}

// GRPC returns the outcome that an answer with the gRPC status is. What is neither OK nor an error is the client's own.
func (e *Errors) GRPC(code int) Outcome {
	switch {
	case code == 0:
		return Succeeded
	case code < 0 || code >= len(grpcCodes): // unknown numbers are UNKNOWN
		code = 2
	}
	switch {
	case e.codes&(1<<code) == 0:
		return ClientError
	case code == deadlineExceeded:
		return TimedOut
	}
	return Failed
}
