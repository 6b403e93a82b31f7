package accesslog

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/wire/message"
)

// Record is what a line can tell of one exchange, or of one connection whose bytes passed unread. A format keeps nothing of it.
type Record struct {
	// Request is nil where there was none: an opaque connection, or bytes that could not be read as one.
	Request *message.Request
	// Path is the path and query as they were before a rewrite, nil without one.
	Path []byte
	// Response is nil before there was one; Trailers where it had none.
	Response, Trailers *message.Head

	Protocol string // "HTTP/1.1"; empty for opaque bytes
	Start    time.Time
	Duration time.Duration
	Status   int // 0 where the client vanished before it had an answer
	// GRPCStatus is -1 where there is none.
	GRPCStatus int
	Flags      []byte // Envoy's response flags, "-" for none
	Details    string // RESPONSE_CODE_DETAILS
	Reason     string // the outcome's name; empty where the application answered, or what is configured did
	// TransportFailure is why TLS with the endpoint failed.
	TransportFailure string

	// Received and Sent are bytes of bodies as they passed on the client's connection; of heads, the Heads.
	Received, Sent, ReceivedHeads, SentHeads int64

	Attempts      int
	Cluster       string
	UpstreamHost  string // host:port, where Upstream is not known
	Route         string
	ServerName    string
	Host          string         // the instance's name, which is a pod's host name
	Upstream      netip.AddrPort // the endpoint, as it was connected to
	UpstreamLocal netip.AddrPort
	Remote, Local netip.AddrPort // of the client's connection
}

// kind is what an operator says.
type kind uint8

const (
	literal kind = iota
	startTime
	duration
	request
	requestWithoutQuery
	response
	trailer
	protocol
	responseCode
	responseFlags
	details
	reason
	termination
	transportFailure
	bytesReceived
	bytesSent
	requestHeads
	responseHeads
	attempts
	cluster
	upstreamHost
	upstreamHostAddress
	upstreamHostPort
	upstreamLocal
	upstreamLocalAddress
	upstreamLocalPort
	local
	localAddress
	localPort
	remote
	remoteAddress
	remotePort
	serverName
	routeName
	grpcStatus
	grpcStatusSnake
	grpcStatusNumber
	hostName
	environment
)

// operators are those that take no argument, and with "(" those that do.
var operators = map[string]kind{
	"START_TIME": startTime, "DURATION": duration,
	"REQ(": request, "REQ_WITHOUT_QUERY(": requestWithoutQuery, "RESP(": response, "TRAILER(": trailer,
	"PROTOCOL": protocol, "RESPONSE_CODE": responseCode, "RESPONSE_FLAGS": responseFlags, "RESPONSE_CODE_DETAILS": details,
	"OUTRIDER_REASON": reason, "CONNECTION_TERMINATION_DETAILS": termination, "UPSTREAM_TRANSPORT_FAILURE_REASON": transportFailure,
	"BYTES_RECEIVED": bytesReceived, "BYTES_SENT": bytesSent, "REQUEST_HEADERS_BYTES": requestHeads, "RESPONSE_HEADERS_BYTES": responseHeads,
	"UPSTREAM_REQUEST_ATTEMPT_COUNT": attempts, "UPSTREAM_CLUSTER": cluster, "UPSTREAM_CLUSTER_RAW": cluster,
	"UPSTREAM_HOST": upstreamHost, "UPSTREAM_REMOTE_ADDRESS": upstreamHost,
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": upstreamHostAddress, "UPSTREAM_REMOTE_PORT": upstreamHostPort,
	"UPSTREAM_LOCAL_ADDRESS": upstreamLocal, "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": upstreamLocalAddress, "UPSTREAM_LOCAL_PORT": upstreamLocalPort,
	"DOWNSTREAM_LOCAL_ADDRESS": local, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": localAddress, "DOWNSTREAM_LOCAL_PORT": localPort,
	"DOWNSTREAM_REMOTE_ADDRESS": remote, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": remoteAddress, "DOWNSTREAM_REMOTE_PORT": remotePort,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": remote, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": remoteAddress, "DOWNSTREAM_DIRECT_REMOTE_PORT": remotePort,
	"REQUESTED_SERVER_NAME": serverName, "ROUTE_NAME": routeName, "HOSTNAME": hostName,
	"GRPC_STATUS": grpcStatus, "GRPC_STATUS_NUMBER": grpcStatusNumber,
	"ENVIRONMENT(": environment,
}

// name is a field's name, or a part of a request that Envoy calls by one.
type name struct {
	field  string
	id     message.ID
	part   part
	secret bool
}

type part uint8

const (
	aField part = iota
	aMethod
	aPath
	anAuthority
	aScheme
	originalPath
	aStatus
	absent
)

func nameOf(s string) name {
	n := name{field: strings.ToLower(s), secret: sensitive(s)}
	switch n.field {
	case "":
		n.part = absent
	case ":method":
		n.part = aMethod
	case ":path":
		n.part = aPath
	case ":authority", "host":
		n.part = anAuthority
	case ":scheme":
		n.part = aScheme
	case ":status":
		n.part = aStatus
	case "x-envoy-original-path":
		n.part = originalPath
	default:
		n.id = message.IdentifyString(n.field)
	}
	return n
}

// operator adds an operator.
func (p *parser) operator(c command, m mode) {
	made := piece{mode: m, most: c.most}
	key := c.name
	switch k, plain := operators[key]; {
	case plain && (!c.argued || k == startTime || k == grpcStatus):
		made.kind = k
	case c.argued && operators[key+"("] != 0:
		made.kind = operators[key+"("]
	case plain:
		p.unmeant(c, m, "the command operator "+c.name+" takes no argument", "write %"+c.name+"%")
		return
	case operators[key+"("] != 0:
		p.unmeant(c, m, "the command operator "+c.name+" needs an argument", "write %"+c.name+"(NAME)%")
		return
	default:
		p.unmeant(c, m, "there is no command operator "+c.name+" yet", "remove it, or use one of those that docs/access-log.md lists; its text is written as it is")
		return
	}
	switch made.kind {
	case startTime:
		layout, bad := parseLayout(c.argument)
		if bad != "" {
			p.unmeant(c, m, "there is no "+bad+" in a time format here", "use those that docs/access-log.md lists")
			return
		}
		made.layout = layout
	case request, requestWithoutQuery, response, trailer:
		first, second, _ := strings.Cut(c.argument, "?")
		made.first, made.second = nameOf(first), nameOf(second)
		if made.first.secret || made.second.secret {
			p.problem(c.text, "the field is a secret, which no log gets", "remove it; [redacted] is written for its value")
		}
	case environment:
		made.text = os.Getenv(c.argument)
	case grpcStatus:
		switch c.argument {
		case "", "CAMEL_STRING":
		case "SNAKE_STRING":
			made.kind = grpcStatusSnake
		case "NUMBER":
			made.kind = grpcStatusNumber
		default:
			p.unmeant(c, m, "there is no form "+c.argument+" of the gRPC status", "write CAMEL_STRING, SNAKE_STRING or NUMBER")
			return
		}
	}
	p.pieces = append(p.pieces, made)
}

// append appends what the operator says of r.
func (p *piece) append(dst []byte, r *Record) []byte {
	switch p.kind {
	case startTime:
		return p.start(dst, r.Start)
	case duration:
		return strconv.AppendInt(dst, r.Duration.Milliseconds(), 10)
	case request, requestWithoutQuery:
		return p.request(dst, r)
	case response:
		return p.field(dst, r.Response, r)
	case trailer:
		return p.field(dst, r.Trailers, r)
	case protocol:
		return word(dst, p, r.Protocol)
	case responseCode:
		return strconv.AppendInt(dst, int64(r.Status), 10)
	case responseFlags:
		return word(dst, p, r.Flags)
	case details:
		return word(dst, p, r.Details)
	case reason:
		return word(dst, p, r.Reason)
	case transportFailure:
		return word(dst, p, r.TransportFailure)
	case bytesReceived:
		return strconv.AppendInt(dst, r.Received, 10)
	case bytesSent:
		return strconv.AppendInt(dst, r.Sent, 10)
	case requestHeads:
		return strconv.AppendInt(dst, r.ReceivedHeads, 10)
	case responseHeads:
		return strconv.AppendInt(dst, r.SentHeads, 10)
	case attempts:
		return strconv.AppendInt(dst, int64(r.Attempts), 10)
	case cluster:
		return word(dst, p, r.Cluster)
	case upstreamHost:
		if !r.Upstream.IsValid() {
			return word(dst, p, r.UpstreamHost)
		}
		return p.address(dst, r.Upstream)
	case upstreamLocal:
		return p.address(dst, r.UpstreamLocal)
	case local:
		return p.address(dst, r.Local)
	case remote:
		return p.address(dst, r.Remote)
	case upstreamHostAddress, upstreamHostPort:
		return p.half(dst, r.Upstream, upstreamHostPort)
	case upstreamLocalAddress, upstreamLocalPort:
		return p.half(dst, r.UpstreamLocal, upstreamLocalPort)
	case localAddress, localPort:
		return p.half(dst, r.Local, localPort)
	case remoteAddress, remotePort:
		return p.half(dst, r.Remote, remotePort)
	case serverName:
		if p.mode == inText && r.ServerName != "" {
			return appendToken(dst, r.ServerName)
		}
		return word(dst, p, r.ServerName)
	case routeName:
		return word(dst, p, r.Route)
	case grpcStatus, grpcStatusSnake, grpcStatusNumber:
		return p.grpc(dst, r.GRPCStatus)
	case hostName:
		return word(dst, p, r.Host)
	case environment:
		return word(dst, p, p.text)
	}
	return p.mode.none(dst) // CONNECTION_TERMINATION_DETAILS: nothing here ends a connection for such a reason
}

// request appends a field or part of the request.
func (p *piece) request(dst []byte, r *Record) []byte {
	if r.Request == nil {
		return p.mode.none(dst)
	}
	for _, n := range [2]*name{&p.first, &p.second} {
		v, query := n.of(r)
		if p.kind == requestWithoutQuery {
			v, _, _ = cut(v)
			query = nil
		}
		if len(v) == 0 && len(query) == 0 {
			continue
		}
		if len(query) == 0 {
			return word(dst, p, n.shown(v))
		}
		return p.pair(dst, v, query)
	}
	return p.mode.none(dst)
}

// cut is bytes.Cut at the query.
func cut(v []byte) (before, after []byte, found bool) {
	for i, c := range v {
		if c == '?' {
			return v[:i], v[i+1:], true
		}
	}
	return v, nil, false
}

// pair appends a path and its query, which lie apart.
func (p *piece) pair(dst, path, query []byte) []byte {
	if p.most > 0 {
		path = path[:min(len(path), p.most)]
		query = query[:min(len(query), p.most-len(path))]
	}
	switch p.mode {
	case inText:
		return appendText(appendText(dst, path), query)
	case inJSON:
		return appendJSON(appendJSON(dst, path), query)
	}
	return append(appendJSON(appendJSON(append(dst, '"'), path), query), '"')
}

// of returns what n names of r's request; a path's query lies apart.
func (n *name) of(r *Record) (v, query []byte) {
	q := r.Request
	switch n.part {
	case aMethod:
		return q.Method(), nil
	case aPath:
		return q.Path(), q.Query()
	case anAuthority:
		return q.Authority(), nil
	case aScheme:
		return q.Scheme(), nil
	case originalPath:
		return r.Path, nil
	case aField:
		v, _ = q.LookupID(n.id, n.field)
	}
	return v, nil
}

// field appends a field of a response or its trailers.
func (p *piece) field(dst []byte, h *message.Head, r *Record) []byte {
	for _, n := range [2]*name{&p.first, &p.second} {
		switch {
		case n.part == aStatus && r.Status != 0 && p.kind == response:
			if p.mode == asJSON {
				dst = append(dst, '"')
			}
			dst = strconv.AppendInt(dst, int64(r.Status), 10)
			if p.mode == asJSON {
				dst = append(dst, '"')
			}
			return dst
		case n.part == aField && h != nil:
			if v, ok := h.LookupID(n.id, n.field); ok && len(v) > 0 {
				return word(dst, p, n.shown(v))
			}
		}
	}
	return p.mode.none(dst)
}

func (p *piece) address(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return p.mode.none(dst)
	}
	if p.mode == asJSON {
		return append(a.AppendTo(append(dst, '"')), '"')
	}
	return a.AppendTo(dst)
}

// half appends an address without its port, or the port.
func (p *piece) half(dst []byte, a netip.AddrPort, port kind) []byte {
	switch {
	case !a.IsValid():
		return p.mode.none(dst)
	case p.kind == port:
		return strconv.AppendInt(dst, int64(a.Port()), 10)
	case p.mode == asJSON:
		return append(a.Addr().AppendTo(append(dst, '"')), '"')
	}
	return a.Addr().AppendTo(dst)
}

// Names of gRPC's status codes, as Envoy writes them: in one word, and in capitals.
var grpcNames = [...][2]string{
	{"OK", "OK"},
	{"Canceled", "CANCELLED"},
	{"Unknown", "UNKNOWN"},
	{"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"},
	{"NotFound", "NOT_FOUND"},
	{"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"},
	{"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"},
	{"Aborted", "ABORTED"},
	{"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"},
	{"Internal", "INTERNAL"},
	{"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"},
	{"Unauthenticated", "UNAUTHENTICATED"},
}

func (p *piece) grpc(dst []byte, status int) []byte {
	switch {
	case status < 0:
		return p.mode.none(dst)
	case p.kind == grpcStatusNumber:
		return strconv.AppendInt(dst, int64(status), 10)
	case status >= len(grpcNames):
		return word(dst, p, "InvalidCode")
	case p.kind == grpcStatusSnake:
		return word(dst, p, grpcNames[status][1])
	}
	return word(dst, p, grpcNames[status][0])
}
