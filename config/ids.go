package config

// Ids of this package's findings. An id is stable: it is never reused for something else.
const (
	idUnreadable  = "OR1001"
	idLimit       = "OR1002"
	idEncoding    = "OR1003"
	idSyntax      = "OR1004"
	idDuplicate   = "OR1005"
	idNotObject   = "OR1006"
	idUnknown     = "OR1007"
	idType        = "OR1008"
	idTwice       = "OR1009"
	idName        = "OR1010"
	idVersion     = "OR1011"
	idIgnore      = "OR1012"
	idUnused      = "OR1020"
	idUnsupported = "OR1021"
	idLater       = "OR1022"
	idLaterGuard  = "OR1023"
	idRequired    = "OR1030"
	idEnum        = "OR1031"
	idRange       = "OR1032"
	idExclusive   = "OR1033"
	idRegex       = "OR1034"
	idDuration    = "OR1035"
	idHost        = "OR1036"
	idHeader      = "OR1037"
	idWeight      = "OR1038"
	idTooMany     = "OR1039"
	idLabel       = "OR1040"
	idRepeated    = "OR1041"
	idValue       = "OR1042"
	idMeaningless = "OR1050"
	idAnnotation  = "OR1051"
	idInert       = "OR1052"
)

// ID describes one kind of finding.
type ID struct {
	ID string
	// Code is Istio's code for the same thing, or empty. IST0106 is what an API server or istiod's webhook would refuse.
	Code    string
	Meaning string
}

// refused is Istio's code for an object that an API server or istiod's webhook would not take.
const refused = "IST0106"

// IDs lists every kind of finding that this package makes.
var IDs = []ID{
	{idUnreadable, "", "a file cannot be read"},
	{idLimit, "", "a file or a document is beyond a limit on size, nesting or aliases"},
	{idEncoding, "", "a file is not UTF-8 text"},
	{idSyntax, "", "a document is not valid YAML or JSON"},
	{idDuplicate, refused, "a mapping has the same key twice"},
	{idNotObject, refused, "a document lacks kind or apiVersion, or is no mapping"},
	{idUnknown, refused, "a field does not exist in the object's type"},
	{idType, refused, "a value has the wrong type"},
	{idTwice, "", "an object is written twice; the first one in path order stays"},
	{idName, refused, "a name, namespace or annotation is missing or not valid"},
	{idVersion, refused, "an API group, version or kind does not exist"},
	{idIgnore, "", "an outrider:ignore comment is incomplete"},
	{idUnused, "", "objects of kinds that are not used here"},
	{idUnsupported, "", "a kind that needs Envoy is refused"},
	{idLater, "", "a kind that the mesh knows has no effect yet"},
	{idLaterGuard, "", "a security kind has no effect yet: what it would refuse is let through"},
	{idRequired, refused, "a required field is missing"},
	{idEnum, refused, "a value is not one of those allowed"},
	{idRange, refused, "a number is out of range"},
	{idExclusive, refused, "fields exclude each other, or one of several is needed"},
	{idRegex, refused, "a regular expression does not compile as RE2"},
	{idDuration, refused, "a duration is not valid"},
	{idHost, refused, "a host name or address is not valid"},
	{idHeader, refused, "a header name or value is not valid"},
	{idWeight, refused, "weights are negative or all zero"},
	{idTooMany, refused, "a list has too many items"},
	{idLabel, refused, "a label or selector is not valid"},
	{idRepeated, refused, "an item that must be unique is repeated"},
	{idValue, refused, "a value is not valid in this place"},
	{idMeaningless, "", "a property of Hystrix has no effect: it means nothing to a proxy, or another comes first"},
	{idAnnotation, "IST0108", "an annotation of the mesh's does not exist; it has no effect"},
	{idInert, "", "an annotation of Istio's has no effect yet"},
}

// codes holds Istio's code by our id.
var codes = func() map[string]string {
	m := make(map[string]string, len(IDs))
	for _, d := range IDs {
		m[d.ID] = d.Code
	}
	return m
}()
