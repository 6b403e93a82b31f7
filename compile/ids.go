package compile

// ID names one kind of finding of this package, for good.
type ID struct {
	ID      string // OR2001
	Code    string // Istio's code for the same, where there is one
	Meaning string
}

// The findings of this package.
var (
	notProxied     = ID{"OR2001", "", "datagrams are not carried"}
	noEffect       = ID{"OR2002", "", "a field has no effect in this version"}
	unknownHost    = ID{"OR2003", "IST0101", "a destination names a host that is no service"}
	unknownSubset  = ID{"OR2004", "IST0101", "a destination names a subset that no DestinationRule defines"}
	portNeeded     = ID{"OR2005", "IST0112", "a destination must say which of the service's ports it means"}
	unknownPort    = ID{"OR2006", "", "a destination, or a policy, names a port that the service does not have"}
	unknownGateway = ID{"OR2007", "IST0101", "a VirtualService names a Gateway that is not there"}
	hostConflict   = ID{"OR2008", "IST0109", "two VirtualServices have the same host; the first has it"}
	unreachable    = ID{"OR2009", "IST0130", "a rule follows one that matches every request"}
	notAtGateway   = ID{"OR2010", "IST0132", "a VirtualService's host is not among the hosts of its Gateway"}
	unknownRule    = ID{"OR2011", "IST0174", "a DestinationRule's host is no service"}
	emptySubset    = ID{"OR2012", "IST0173", "a subset's labels select no workload"}
	tlsRefused     = ID{"OR2013", "", "a destination must be spoken to with TLS that cannot be set up; nothing is sent there"}
	subsetTwice    = ID{"OR2014", "", "a subset is defined twice; the first has the name"}
	badPattern     = ID{"OR2015", "IST0106", "a regular expression cannot be compiled"}
	twoShapers     = ID{"OR2016", "", "objects of different kinds route the same service; one of them is ignored"}
	splitConflict  = ID{"OR2017", "", "two TrafficSplits have the same root service; the first has it"}
	leafMissing    = ID{"OR2018", "", "a TrafficSplit names a service that is not there"}
	leafPort       = ID{"OR2019", "", "a service of a TrafficSplit lacks a port of the root service"}
	unknownParent  = ID{"OR2020", "", "a route's parent is not there"}
	notAttached    = ID{"OR2021", "", "a Gateway's listener does not take this route"}
	badBackend     = ID{"OR2022", "", "a backendRef leads nowhere; its share of the requests is answered 500 (gRPC: UNAVAILABLE)"}
	notGranted     = ID{"OR2023", "", "a backendRef in another namespace needs a ReferenceGrant there"}
	badFilter      = ID{"OR2024", "", "a filter cannot be applied; its requests are answered 500 (gRPC: UNAVAILABLE)"}
	workloadTwice  = ID{"OR2025", "", "two workloads of a namespace have the same name; the first has it"}
	serviceTwice   = ID{"OR2026", "", "two services have the same host; one of them is ignored"}
	badMeshConfig  = ID{"OR2027", "", "the mesh configuration cannot be read"}
	noAction       = ID{"OR2028", "IST0106", "a rule says nothing about where its requests go"}
	noWeight       = ID{"OR2029", "IST0106", "all destinations of a rule have weight 0"}
	serverLeftOut  = ID{"OR2030", "", "a gateway's server is not served by this version"}
	badValue       = ID{"OR2031", "IST0106", "a value is outside of what the field allows"}
	groupMissing   = ID{"OR2032", "", "a TrafficSplit names an HTTPRouteGroup that is not there"}
	outsideMesh    = ID{"OR2033", "", "a VirtualService's host is no service of the mesh; its rules hold on port 80 only"}
	differently    = ID{"OR2034", "", "a field works differently on this platform"}
	secretMissing  = ID{"OR2035", "IST0101", "a credential is not there"}
	badSecret      = ID{"OR2036", "IST0161", "a credential cannot be used"}
	serverConflict = ID{"OR2037", "IST0145", "two servers of a gateway's port exclude each other; the first has it"}
	sidecarTwice   = ID{"OR2038", "IST0111", "a namespace has two Sidecars for all its workloads; the first holds"}
	sidecarOverlap = ID{"OR2039", "IST0110", "two Sidecars select the same workload; the first holds"}
	emptyListener  = ID{"OR2041", "", "a Sidecar's listener leads nowhere, or to one of several services"}
	unfit          = ID{"OR2043", "", "requests are routed to a port that cannot take them: bytes or TLS as declared, or HTTP/1.1 where a route carries gRPC"}
	delegateGone   = ID{"OR2044", "IST0101", "a rule delegates to a VirtualService that is not there, or not for it"}
	delegateClash  = ID{"OR2045", "", "a delegate's rule has no effect: it does not lie within the match of the rule that delegates to it"}
	noRoot         = ID{"OR2046", "", "no VirtualService delegates to this one"}
	limitSurprise  = ID{"OR2047", "", "a limit alone does something else than its name says"}
	neverEjects    = ID{"OR2048", "", "an outlierDetection can never eject an endpoint"}
	ineffective    = ID{"OR2049", "", "a setting has no effect, as another one is"}
	breakerTarget  = ID{"OR2060", "", "a CircuitBreaker's host, port or subset is not there, or carries no requests; it guards nothing"}
	breakerTwice   = ID{"OR2061", "", "two CircuitBreakers have the same target; the first has it"}
	breakerLoop    = ID{"OR2062", "", "a CircuitBreaker falls back to its own target"}
	limitTarget    = ID{"OR2065", "", "a RateLimit's workloads, host or Gateway are not there, or carry no requests; it limits nothing"}
	limitService   = ID{"OR2066", "", "the service that a RateLimit shares its count through cannot be asked, or not over gRPC"}
	badLogFormat   = ID{"OR2075", "", "a part of the access log's format has no meaning here; it is written as it is"}
	unknownGroup   = ID{"OR2070", "", "a WorkloadEntry belongs to a WorkloadGroup that is not there"}
	probeCommand   = ID{"OR2071", "", "a WorkloadGroup's probe is a command, and commands were not allowed"}
	wrongPort      = ID{"OR2040", "", "a route's kind does not fit the port's protocol; it has no effect there"}
)

// IDs lists the kinds of finding that New reports.
func IDs() []ID {
	return []ID{
		notProxied, noEffect, unknownHost, unknownSubset, portNeeded, unknownPort, unknownGateway, hostConflict, unreachable,
		notAtGateway, unknownRule, emptySubset, tlsRefused, subsetTwice, badPattern, twoShapers, splitConflict, leafMissing,
		leafPort, unknownParent, notAttached, badBackend, notGranted, badFilter, workloadTwice, serviceTwice, badMeshConfig,
		noAction, noWeight, serverLeftOut, badValue, groupMissing, outsideMesh, differently,
		secretMissing, badSecret, serverConflict, sidecarTwice, sidecarOverlap, wrongPort, emptyListener, unfit,
		delegateGone, delegateClash, noRoot, limitSurprise, neverEjects, ineffective, breakerTarget, breakerTwice, breakerLoop, limitTarget, limitService,
		unknownGroup, badLogFormat, probeCommand,
	}
}
