package outlier

import (
	"fmt"
	"time"
)

// Settings are what Istio's outlierDetection configures of Envoy's. They may be changed while the detector runs, and are
// comparable. The zero value of a count turns that kind off.
type Settings struct {
	Consecutive5xx         uint32 // consecutive5xxErrors; Istio's default is 5
	ConsecutiveGateway     uint32 // consecutiveGatewayErrors: 502, 503 and 504 only; has no effect where it is not below Consecutive5xx
	ConsecutiveLocalOrigin uint32 // consecutiveLocalOriginFailures, for Split only; the default is 5

	// Split counts what this side sees (no connection, a reset, a timeout) by itself. Otherwise it counts as a 503 or 504.
	Split bool

	// Codes are the answers that count as errors, in place of every 5xx; none are given by the zero value.
	Codes Statuses

	Interval           time.Duration // between sweeps; ejections end at one only. Default 10 s
	BaseEjection       time.Duration // of a first ejection; each further one is longer by it. Default 30 s
	MaxEjection        time.Duration // of any ejection; 0 is 5 minutes, or BaseEjection where that is longer
	MaxEjectionPercent int           // of the hosts that may be ejected at once, 0 to 100. Default 10: with fewer than ten hosts, none
	AlwaysOne          bool          // one host may be ejected whatever the percentage: Envoy's always_eject_one_host, which Istio does not set
}

// Defaults returns what an empty outlierDetection means in Istio.
func Defaults() Settings {
	return Settings{
		Consecutive5xx:         5,
		ConsecutiveLocalOrigin: 5,
		Interval:               10 * time.Second,
		BaseEjection:           30 * time.Second,
		MaxEjectionPercent:     10,
	}
}

// Check says what is wrong with the settings, naming Istio's field, or nil.
func (s *Settings) Check() error {
	switch {
	case s.Interval < time.Millisecond:
		return fmt.Errorf("interval is %v: it must be at least 1ms", s.Interval)
	case s.BaseEjection < time.Millisecond:
		return fmt.Errorf("baseEjectionTime is %v: it must be at least 1ms", s.BaseEjection)
	case s.MaxEjection != 0 && s.MaxEjection < s.BaseEjection:
		return fmt.Errorf("the longest ejection is %v: it must not be shorter than baseEjectionTime, %v", s.MaxEjection, s.BaseEjection)
	case s.MaxEjectionPercent < 0 || s.MaxEjectionPercent > 100:
		return fmt.Errorf("maxEjectionPercent is %d: it must be between 0 and 100", s.MaxEjectionPercent)
	}
	return nil
}

// Most returns how many of so many hosts may be ejected at once. 0 means that the settings never eject any, which is
// seldom meant: 10 percent of nine hosts is less than one.
func (s *Settings) Most(hosts int) int {
	n := s.MaxEjectionPercent * hosts / 100
	if n == 0 && s.AlwaysOne && hosts > 0 {
		return 1
	}
	return n
}

// longest returns the bound on an ejection.
func (s *Settings) longest() time.Duration {
	if s.MaxEjection != 0 {
		return s.MaxEjection
	}
	return max(5*time.Minute, s.BaseEjection)
}

// Statuses is a set of HTTP statuses below 640. It is comparable.
type Statuses [10]uint64

// Add puts a status into the set.
func (s *Statuses) Add(status int) error {
	if status < 100 || status > 599 {
		return fmt.Errorf("%d is no HTTP status: write one from 100 to 599", status)
	}
	s[status/64] |= 1 << (status % 64)
	return nil
}

func (s *Statuses) has(status int) bool {
	return status >= 0 && status < 64*len(s) && s[status/64]&(1<<(status%64)) != 0
}

// rules are settings as reports read them.
type rules struct {
	Settings
	coded bool // Codes are given
}

func (s Settings) rules() *rules { return &rules{Settings: s, coded: s.Codes != Statuses{}} }

// grade returns the status that is counted for an answer: its own, or where Codes say what an error is, 200 for what is
// none, and 500 for one that is no 5xx (Envoy's error matcher does so).
func (s *rules) grade(status int) int {
	switch {
	case !s.coded:
		return status
	case !s.Codes.has(status):
		return 200
	case status < 500:
		return 500
	}
	return status
}

// HTTPStatus returns what Envoy counts for a gRPC status in an answer's head; one in trailers is not seen.
func HTTPStatus(grpc int) int {
	codes := [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}
	if grpc < 0 || grpc >= len(codes) {
		return 500
	}
	return codes[grpc]
}
