package model

import "errors"

// Probe is how an application is asked whether it is ready for requests. Where none of HTTP, GRPC and Exec is set, a
// connection that can be opened is a good answer.
type Probe struct {
	// Address is host:port of the application; "" with Exec.
	Address string     `json:"address,omitempty"`
	HTTP    *HTTPProbe `json:"http,omitempty"`
	GRPC    *GRPCProbe `json:"grpc,omitempty"`
	Exec    *ExecProbe `json:"exec,omitempty"`
	// InitialDelay is how long after its start an application is asked first.
	InitialDelay Duration `json:"initialDelay,omitempty"`
	Period       Duration `json:"period"`  // between questions; longer than 0
	Timeout      Duration `json:"timeout"` // for an answer; longer than 0
	// Successes and Failures are how many answers of one kind in a row change the verdict; at least 1.
	Successes uint32 `json:"successes"`
	Failures  uint32 `json:"failures"`
}

func (p *Probe) validate() error {
	switch {
	case p == nil:
		return nil
	case p.HTTP != nil && p.GRPC != nil || p.Exec != nil && (p.HTTP != nil || p.GRPC != nil):
		return errors.New("it asks over HTTP, over gRPC or by a command, and in one way only")
	case p.Exec != nil && len(p.Exec.Command) == 0:
		return errors.New("its command has no program")
	case p.Period <= 0 || p.Timeout <= 0 || p.InitialDelay < 0:
		return errors.New("period and timeout are longer than 0, the initial delay is no shorter")
	case p.Successes == 0 || p.Failures == 0:
		return errors.New("successes and failures are at least 1")
	}
	return nil
}

// HTTPProbe is a GET; a status from 200 to 399 is a good answer.
type HTTPProbe struct {
	TLS     bool        `json:"tls,omitempty"` // any certificate will do, as for Kubernetes
	Host    string      `json:"host"`          // host:port that is asked for; a header Host comes before it
	Path    string      `json:"path"`          // with its query
	Headers []NameValue `json:"headers,omitempty"`
}

// GRPCProbe is a call of grpc.health.v1.Health/Check; SERVING is a good answer.
type GRPCProbe struct {
	Service string `json:"service,omitempty"` // that is asked about; "" is the server as a whole
}

// ExecProbe is a command that a sidecar runs on its own machine, if it was allowed to; exit code 0 is a good answer.
type ExecProbe struct {
	Command []string `json:"command"` // the program and its arguments; no shell reads them
}
