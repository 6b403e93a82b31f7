//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profileCase runs one more stretch of load on each outrider-proxy and keeps a CPU profile of it.
func (b *bench) profileCase(all []*result) error {
	if err := os.MkdirAll(b.o.profile, 0o755); err != nil {
		return fmt.Errorf("cannot create the directory for profiles: %w", err)
	}
	for _, r := range all {
		if r.failure != nil || !ours(r.name) {
			continue
		}
		if r.process.admin == "" {
			b.say("%s told no admin address in its ready file: no profile", r.name)
			continue
		}
		if err := b.profileOne(r); err != nil {
			return err
		}
	}
	return nil
}

// ours says whether an entrant is an outrider-proxy.
func ours(name string) bool {
	return name == outboundName || name == guardedName || name == baseName || name == inboundName || name == gatewayName
}

func (b *bench) profileOne(r *result) error {
	c, err := b.open(r.process.addr, r.c)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Saturate(b.o.warm); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s.pprof", r.name, strings.ReplaceAll(r.c.name, "/", "-"))
	file := filepath.Join(b.o.profile, name)
	ctx, cancel := context.WithTimeout(b.ctx, b.o.profileTime+10*time.Second)
	defer cancel()
	fetched := make(chan error, 1)
	b.waits.Go(func() { fetched <- fetchProfile(ctx, r.process.admin, b.o.profileTime, file) })
	for {
		if err := c.Saturate(100 * time.Millisecond); err != nil {
			cancel()
			<-fetched
			return err
		}
		select {
		case err := <-fetched:
			if err != nil {
				b.say("no profile of %s: %v", r.name, err)
			} else {
				b.say("profile in %s", file)
			}
			return c.Drain()
		default:
		}
	}
}

// fetchProfile takes a CPU profile from a Go program's pprof pages, the load lasting a little longer on both sides, and writes
// it to file.
func fetchProfile(ctx context.Context, admin string, d time.Duration, file string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, body, 0o644)
}
