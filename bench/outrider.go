//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// findOutrider builds the proxy from this checkout once, or takes the one that OUTRIDER_PROXY names.
func findOutrider(b *bench) (string, string, error) {
	if path := os.Getenv("OUTRIDER_PROXY"); path != "" {
		return path, "from OUTRIDER_PROXY", nil
	}
	if b.outrider == "" && b.outriderErr == nil {
		b.outrider, b.outriderErr = b.build()
	}
	return b.outrider, "of this checkout", b.outriderErr
}

// baseVariable names another build of the proxy, to be measured beside this one.
const baseVariable = "OUTRIDER_BASE"

func findBase(*bench) (string, string, error) {
	path := os.Getenv(baseVariable)
	if _, err := os.Stat(path); err != nil {
		return "", "", fmt.Errorf("%s: %w", baseVariable, err)
	}
	return path, "from " + baseVariable, nil
}

// outriderCommand writes one snapshot with a listener of each direction; the one that e names is at listen, the others
// at any free port.
func outriderCommand(b *bench, e *entrant, listen, dir string) ([]string, error) {
	at := map[string]string{outboundName: "127.0.0.1:0", inboundName: "127.0.0.1:0", gatewayName: "127.0.0.1:0"}
	at[e.name] = listen
	m := newMesh(b.backendAddresses(e.lane))
	m.guarded = e.name == guardedName
	if e.name == baseName || m.guarded {
		at[outboundName], at[gatewayName] = listen, listen // a lane has one of the two
	}
	s := m.snapshot(e.lane, at, b.identity)
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("the snapshot is not valid: %w", err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "s.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	return []string{"run", "--snapshot", file, "--admin", "127.0.0.1:0", "--ready-file", filepath.Join(dir, "ready.json")}, nil
}
