package telemetry

import "github.com/outrider-mesh/outrider/mesh/model"

// SetSelf changes what the sidecar's own workload is called: its template was edited. Handles that are resolved from now
// on carry the new labels; those that there are keep theirs until their generation is gone.
func (m *Metrics) SetSelf(self model.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.self = self
}
