package message

// Known header fields.
const (
	Other ID = iota
	AcceptEncoding
	Authorization
	Connection
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	GRPCStatus
	GRPCTimeout
	Host
	KeepAlive
	Origin
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	Server
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Via
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XRequestID
	XEnvoyAttemptCount
	XEnvoyUpstreamServiceTime
	XOutriderPeer
	XOutriderReason
	idCount
)

// names are the known fields' names in lower case, by ID.
var names = [idCount]string{
	AcceptEncoding:            "accept-encoding",
	Authorization:             "authorization",
	Connection:                "connection",
	ContentLength:             "content-length",
	ContentType:               "content-type",
	Cookie:                    "cookie",
	Date:                      "date",
	Expect:                    "expect",
	GRPCStatus:                "grpc-status",
	GRPCTimeout:               "grpc-timeout",
	Host:                      "host",
	KeepAlive:                 "keep-alive",
	Origin:                    "origin",
	ProxyAuthenticate:         "proxy-authenticate",
	ProxyAuthorization:        "proxy-authorization",
	ProxyConnection:           "proxy-connection",
	Server:                    "server",
	TE:                        "te",
	Trailer:                   "trailer",
	TransferEncoding:          "transfer-encoding",
	Upgrade:                   "upgrade",
	UserAgent:                 "user-agent",
	Via:                       "via",
	XForwardedFor:             "x-forwarded-for",
	XForwardedHost:            "x-forwarded-host",
	XForwardedProto:           "x-forwarded-proto",
	XRequestID:                "x-request-id",
	XEnvoyAttemptCount:        "x-envoy-attempt-count",
	XEnvoyUpstreamServiceTime: "x-envoy-upstream-service-time",
	XOutriderPeer:             "x-outrider-peer",
	XOutriderReason:           "x-outrider-reason",
}

// String returns the field's name in lower case, or "" for Other.
func (id ID) String() string { return names[id] }

// byShape lists the known names by length and lower-cased last letter, so that identifying a name costs at most a few comparisons.
var byShape = func() (t [32][32][]ID) {
	for id := Other + 1; id < idCount; id++ {
		n := names[id]
		last := n[len(n)-1] & 31
		t[len(n)][last] = append(t[len(n)][last], id)
	}
	return t
}()

// Identify returns the ID of a header field's name, in any case.
func Identify(name []byte) ID {
	if len(name) == 0 || len(name) >= len(byShape) {
		return Other
	}
	for _, id := range byShape[len(name)][name[len(name)-1]&31] {
		if EqualFold(name, names[id]) {
			return id
		}
	}
	return Other
}

// IdentifyString is Identify for a string.
func IdentifyString(name string) ID {
	if len(name) == 0 || len(name) >= len(byShape) {
		return Other
	}
	for _, id := range byShape[len(name)][name[len(name)-1]&31] {
		if equalFoldString(name, names[id]) {
			return id
		}
	}
	return Other
}

func equalFoldString(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if x, y := a[i], b[i]; x != y && lower(x) != lower(y) {
			return false
		}
	}
	return true
}
