package certificate

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// versions are Istio's names of TLS versions. Empty and TLS_AUTO leave the choice to the defaults.
var versions = map[string]uint16{
	"": 0, "TLS_AUTO": 0, "TLSV1_0": tls.VersionTLS10, "TLSV1_1": tls.VersionTLS11, "TLSV1_2": tls.VersionTLS12, "TLSV1_3": tls.VersionTLS13,
}

// openssl are the suites of TLS 1.2 and before by OpenSSL's names, those that Istio knows and crypto/tls has.
var openssl = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA256":     tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-RSA-AES128-SHA256":       tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA256":                 tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	"DES-CBC3-SHA":                  tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
}

// versionRange returns what the names of the least and the newest version stand for. The least is TLS 1.2 unless named.
func versionRange(least, newest string) (lo, hi uint16, err error) {
	lo, ok := versions[least]
	if !ok {
		return 0, 0, fmt.Errorf("unknown minProtocolVersion %q: use TLSV1_0, TLSV1_1, TLSV1_2 or TLSV1_3", least)
	}
	hi, ok = versions[newest]
	if !ok {
		return 0, 0, fmt.Errorf("unknown maxProtocolVersion %q: use TLSV1_0, TLSV1_1, TLSV1_2 or TLSV1_3", newest)
	}
	if lo == 0 {
		lo = tls.VersionTLS12
	}
	if hi != 0 && hi < lo {
		return 0, 0, fmt.Errorf("maxProtocolVersion %s is below the least version, %s: no client could connect", newest, tls.VersionName(lo))
	}
	return lo, hi, nil
}

// suites returns the TLS 1.2 suites that names stand for; nil leaves the choice to crypto/tls. Suites of TLS 1.3 are
// known and left out: that version takes all of its own, in crypto/tls as in Envoy. Names are OpenSSL's or the RFCs'.
func suites(names []string) ([]uint16, error) {
	var ids []uint16
	for _, name := range names {
		id, ok := openssl[strings.ToUpper(name)]
		if !ok {
			s := byRFC(name)
			if s == nil {
				return nil, fmt.Errorf("unknown cipher suite %q: use OpenSSL's names, such as ECDHE-ECDSA-AES128-GCM-SHA256", name)
			}
			if !slices.ContainsFunc(s.SupportedVersions, func(v uint16) bool { return v < tls.VersionTLS13 }) {
				continue
			}
			id = s.ID
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func byRFC(name string) *tls.CipherSuite {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if strings.EqualFold(s.Name, name) {
			return s
		}
	}
	return nil
}
