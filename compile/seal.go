package compile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// parts is the encoding of what a snapshot shares with others: its outbound table, and its clusters without the inbound ones.
// Encoding is by far the dearest step of a snapshot (BenchmarkFull), so each part is encoded once and hashed many times.
type parts struct {
	table    []byte
	clusters [][]byte
}

// seal does what model.Seal does, with the shared parts of s encoded already.
func seal(s *model.Snapshot, p parts) *model.Snapshot {
	if len(p.clusters) == 0 {
		return model.Seal(s)
	}
	head, err := json.Marshal(&model.Snapshot{Requires: s.Requires, Workload: s.Workload, Settings: s.Settings, Listeners: s.Listeners})
	head, ok := bytes.CutSuffix(head, []byte(`"tables":null,"clusters":null}`))
	if err != nil || !ok {
		return model.Seal(s)
	}
	sum := sha256.New()
	sum.Write(head)
	sum.Write([]byte(`"tables":[`))
	sum.Write(p.table)
	for i := range s.Tables[1:] {
		sum.Write([]byte{','})
		sum.Write(encoded(&s.Tables[1+i]))
	}
	sum.Write([]byte(`],"clusters":[`))
	for i, c := range p.clusters {
		if i > 0 {
			sum.Write([]byte{','})
		}
		sum.Write(c)
	}
	for i := range s.Clusters[len(p.clusters):] {
		sum.Write([]byte{','})
		sum.Write(encoded(&s.Clusters[len(p.clusters)+i]))
	}
	sum.Write([]byte(`]`))
	if len(s.Breakers) > 0 {
		sum.Write([]byte(`,"breakers":`))
		sum.Write(encoded(s.Breakers))
	}
	if len(s.RateLimits) > 0 {
		sum.Write([]byte(`,"rateLimits":`))
		sum.Write(encoded(s.RateLimits))
	}
	sum.Write([]byte(`}`))
	s.Version = hex.EncodeToString(sum.Sum(nil)[:8])
	return s
}

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("compile: a part of a snapshot always encodes: " + err.Error())
	}
	return b
}
