package compile

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// port is one port of a service, and where its endpoints come from.
type port struct {
	service  *service
	number   int
	name     string
	protocol model.Protocol
	declared string // the protocol as declared: "mysql"
	source   source
	// Of the workload's ports, the one that requests go to: by name, by number, or (both zero) number itself.
	targetName   string
	targetNumber int
	selector     map[string]string // of source selected; nil selects nothing
	fixed        []candidate       // of source listed
	workloads    []*workload       // that selector selects
	backendTLS   *backendTLS       // of a BackendTLSPolicy, nil without one
}

// source says where a port's endpoints come from.
type source int

const (
	selected source = iota // workloads that a selector selects
	listed                 // written down: in a ServiceEntry, in EndpointSlices, or a name to resolve
	named                  // whatever the request names (ServiceEntry resolution NONE)
)

// candidate is an endpoint, and the labels that subsets choose it by.
type candidate struct {
	endpoint model.Endpoint
	labels   map[string]string
	node     string // that it runs on, where that is known
}

// opaque says whether what is spoken there is bytes to the proxy, not requests.
func opaque(p model.Protocol) bool { return p == model.TCP || p == model.TLS || p == model.HTTPS }

// secure says whether it is TLS that the proxy does not open: it is routed by server name.
func secure(p model.Protocol) bool { return p == model.TLS || p == model.HTTPS }

// alike says whether what comes for one port can be sent to the other: both take requests, or both take bytes.
func alike(a, b *port) bool {
	return a.protocol == model.Auto || b.protocol == model.Auto || opaque(a.protocol) == opaque(b.protocol)
}

// spoken is what endpoints of a port's protocol are spoken to with: HTTPS that comes as bytes leaves as bytes.
func spoken(p model.Protocol) model.Protocol {
	if p == model.HTTPS {
		return model.TLS
	}
	return p
}

// text names p for people: "9080 (http)".
func (p *port) text() string {
	if p.declared == "" {
		return strconv.Itoa(p.number)
	}
	return strconv.Itoa(p.number) + " (" + p.declared + ")"
}

// byProtocol gives the protocols that Istio knows by name; the rest is detected.
var byProtocol = map[string]model.Protocol{
	"tcp": model.TCP, "mongo": model.TCP, "redis": model.TCP, "mysql": model.TCP, "udp": model.TCP,
	"grpc": model.GRPC, "grpc-web": model.GRPC, "http": model.HTTP, "http2": model.HTTP2, "https": model.HTTPS, "tls": model.TLS,
}

// protocolOf finds a Kubernetes port's protocol as Istio does: appProtocol, else the port's name up to its first dash, else
// the few ports whose servers speak first.
func protocolOf(name string, appProtocol *string, number int) (protocol model.Protocol, declared string) {
	if appProtocol != nil {
		switch strings.ToLower(*appProtocol) {
		case "kubernetes.io/h2c":
			return model.HTTP2, "http2"
		case "kubernetes.io/ws":
			return model.HTTP, "http"
		case "kubernetes.io/wss":
			return model.HTTPS, "https"
		}
		name = *appProtocol
	}
	name = strings.ToLower(name)
	if name != "grpc-web" && !strings.HasPrefix(name, "grpc-web-") {
		name, _, _ = strings.Cut(name, "-")
	} else {
		name = "grpc-web"
	}
	if p, ok := byProtocol[name]; ok {
		return p, name
	}
	switch number {
	case 25, 53, 3306, 27017:
		return model.TCP, "tcp"
	}
	return model.Auto, ""
}

// entryProtocol reads the protocol of a ServiceEntry's or Gateway's port.
func entryProtocol(s string) (protocol model.Protocol, declared string) {
	s = strings.ToLower(s)
	if p, ok := byProtocol[s]; ok {
		return p, s
	}
	return model.Auto, ""
}

// stream says whether a Kubernetes port is one that a mesh carries at all.
func stream(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }
