package telemetry

// Flags say what befell an exchange, as Envoy's response flags do. They can be combined with |.
type Flags uint32

// Envoy's response flags. Envoy writes them in the order in which it finds them out: faults come before
// all that attempts may bring, and that retries are used up before what the last attempt ended with.
const (
	DI    Flags = 1 << iota // delay injected
	FI                      // fault injected
	URX                     // retry limit or connect attempts exceeded
	LH                      // local service failed its health check
	UH                      // no healthy upstream
	UT                      // upstream request timeout
	LR                      // local reset of the connection
	UR                      // upstream reset the stream
	UF                      // upstream connection failure
	UC                      // upstream connection termination
	UO                      // upstream overflow: circuit breaking
	NR                      // no route
	RL                      // rate limited
	UAEX                    // denied by external authorization
	RLSE                    // rate limit service error
	DC                      // downstream connection termination
	SI                      // stream idle timeout
	IH                      // invalid value in a strictly checked header
	DPE                     // downstream protocol error
	UMSDR                   // upstream stream reached its longest duration
	RFCF                    // response from cache
	NFCF                    // no filter configuration
	DT                      // downstream duration timeout
	UPE                     // upstream protocol error
	NC                      // no cluster
	OM                      // overload manager
	DF                      // DNS resolution failed
	DO                      // dropped for overload of the upstream
	DR                      // downstream reset the stream
	flagsEnd
)

var flagNames = [...]string{
	"DI", "FI", "URX", "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "RL", "UAEX", "RLSE", "DC", "SI", "IH",
	"DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
}

// String returns the flags' names with commas between them, or "-" for none.
func (f Flags) String() string {
	if f&(flagsEnd-1) == 0 {
		return "-"
	}
	return string(f.AppendTo(nil))
}

// AppendTo appends what String returns.
func (f Flags) AppendTo(dst []byte) []byte {
	if f &= flagsEnd - 1; f == 0 {
		return append(dst, '-')
	}
	for i, n := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		dst = append(dst, n...)
		if f >>= i + 1; f == 0 {
			break
		}
		f <<= i + 1
		dst = append(dst, ',')
	}
	return dst
}
