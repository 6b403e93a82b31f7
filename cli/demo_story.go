package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/local"
)

// The breaker's story: who fails, whose breaker it is, when it begins, and how much time it needs at the usual scrape interval.
const (
	storyTarget = "details"
	storyClient = "storefront"
	storyBegins = 2 * time.Second
	storyTakes  = 15 * time.Second
)

// story breaks a dependency and tells what its client's breaker makes of it, by the metrics. It does nothing that a user
// could not: it asks the admin address to make a stand-in fail, and calls through the client's sidecar.
type story struct {
	mesh     *local.Mesh
	object   config.Source // of the CircuitBreaker
	standIn  string        // the URL that makes it fail, and heals it
	sidecar  string        // host:port of the client's outbound proxy
	chapter  chapter       // that is told next
	before   readings      // as of the scrape before the stand-in broke
	events   []happened
	problem  error // why it goes no further
	finished bool
}

// chapter is what the story waits for.
type chapter int

const (
	calm     chapter = iota // requests pass
	broken                  // the breaker opens
	answered                // the fallback answers
	probed                  // a probe fails
	healed                  // a probe succeeds
)

// missing says what did not happen where the story ends with a chapter.
var missing = [...]string{
	"no requests passed, so nothing was broken",
	"it did not open while " + storyTarget + " was broken",
	"its fallback did not answer while it was open",
	"it sent no probe while " + storyTarget + " was broken",
	"it did not close after " + storyTarget + " was healed",
}

// happened is one event of the story.
type happened struct {
	at         time.Duration
	what, text string
}

// storyIndent is the column where an event's text begins.
const storyIndent = 17

// line is the event as it is told.
func (h happened) line() string {
	return fmt.Sprintf("%4.0fs  %-9s %s\n", h.at.Seconds(), h.what, h.text)
}

// newStory returns nil where the files, which users may have changed, have no such breaker.
func newStory(m *local.Mesh) *story {
	s := &story{mesh: m}
	ready := m.Ready()
	found := false
	for _, o := range m.State().Objects {
		if b, ok := o.Spec.(*config.CircuitBreaker); ok && o.Namespace == "default" && o.Name == storyTarget && b.Fallback != nil {
			s.object, found = o.Source, true
		}
	}
	for _, w := range ready.Workloads {
		switch w.Name {
		case storyTarget:
			s.standIn = ready.Admin + "/stand-ins/" + w.Namespace + "/" + w.Instance
		case storyClient:
			s.sidecar = w.Outbound
		}
	}
	if !found || s.standIn == "" || s.sidecar == "" {
		return nil
	}
	return s
}

// readings are what the client's sidecar tells of its breaker, all by one scrape.
type readings struct {
	state                                string
	opened, probesFailed, closed         float64 // transitions
	success, failed, fallbacks, refusals float64 // events, of Hystrix's names
}

// read asks Prometheus.
func (s *story) read(ctx context.Context) (r readings, err error) {
	const selection = `{__name__=~"outrider_breaker_state|outrider_breaker_transitions_total|hystrix_command_event_total",namespace="default",workload="` + storyClient + `"}`
	samples, err := s.mesh.Prometheus().Query(ctx, selection, time.Now())
	if err != nil {
		return r, err
	}
	for _, sample := range samples {
		l, v := sample.Labels, sample.Value
		switch {
		case l["breaker"] != "default/"+storyTarget && l["command_name"] != storyTarget:
		case l["__name__"] == "outrider_breaker_state" && v == 1:
			r.state = l["state"]
		case l["reason"] == "error_threshold":
			r.opened = v
		case l["reason"] == "probe_succeeded":
			r.closed = v
		case strings.HasPrefix(l["reason"], "probe_") && l["to"] == "open":
			r.probesFailed += v
		case l["event"] == "success":
			r.success = v
		case l["event"] == "failure" || l["event"] == "timeout":
			r.failed += v
		case l["event"] == "fallback_success":
			r.fallbacks = v
		case l["event"] == "short_circuited":
			r.refusals = v
		}
	}
	return r, nil
}

// follow tells what has happened since the last time. What stands in the story's way ends it; errors are those of the demo.
func (s *story) follow(ctx context.Context, elapsed time.Duration) ([]happened, error) {
	if s == nil || s.finished || s.problem != nil || elapsed < storyBegins {
		return nil, nil
	}
	now, err := s.read(ctx)
	if err != nil || now.state == "" { // a busy machine misses a scrape now and then
		return nil, err
	}
	told := len(s.events)
	for before := s.chapter - 1; before != s.chapter && !s.finished && s.problem == nil; {
		before = s.chapter
		s.problem = s.tell(ctx, now, elapsed)
	}
	return s.events[told:], nil
}

// tell goes on to the next chapter, if it has come about.
func (s *story) tell(ctx context.Context, now readings, elapsed time.Duration) error {
	say := func(what, format string, args ...any) {
		s.events = append(s.events, happened{elapsed, what, fmt.Sprintf(format, args...)})
		s.chapter++
	}
	switch s.chapter {
	case calm:
		if now.success < 20 || now.state != "closed" {
			return nil
		}
		const how = "?status=503"
		if err := s.post(ctx, how); err != nil {
			return err
		}
		s.before = now
		say("broken", "%s answers 503: curl -X POST '%s%s'", storyTarget, s.standIn, how)
	case broken:
		if now.opened > s.before.opened {
			say("open", "after %.0f failures; %s is not asked any more", now.failed-s.before.failed, storyTarget)
		}
	case answered:
		status, reason, err := s.call(ctx)
		if err != nil {
			return err
		}
		if reason == "fallback" {
			say("fallback", "%s, x-outrider-reason: %s: curl -i -x %s http://%s:9080/", status, reason, s.sidecar, storyTarget)
		}
	case probed:
		if now.probesFailed == s.before.probesFailed {
			return nil
		}
		if err := s.post(ctx, ""); err != nil {
			return err
		}
		say("probe", "one request was let through and failed: the breaker stays open")
		s.events = append(s.events, happened{elapsed, "healed", storyTarget + " answers again: curl -X POST " + s.standIn})
	case healed:
		if now.closed > s.before.closed && now.state == "closed" {
			say("closed", "the next probe succeeded; meanwhile the fallback answered %.0f requests, %.0f of them without asking %s",
				now.fallbacks-s.before.fallbacks, now.refusals-s.before.refusals, storyTarget)
			s.finished = true
		}
	}
	return nil
}

// post makes the stand-in misbehave, or heals it.
func (s *story) post(ctx context.Context, how string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.standIn+how, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(io.LimitReader(res.Body, 1000)); res.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s%s is answered %s: %s", s.standIn, how, res.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// call asks for the target as the client does, through its sidecar.
func (s *story) call(ctx context.Context) (status, reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+storyTarget+":9080/", nil)
	if err != nil {
		return "", "", err
	}
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.sidecar}), DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.Status, res.Header.Get("x-outrider-reason"), err
}

// unfinished says what did not come about; nil where everything did, or where there was no story to tell.
func (s *story) unfinished() error {
	switch {
	case s == nil || s.finished:
		return nil
	case s.problem != nil:
		return fmt.Errorf("the breaker's story ends early: %w", s.problem)
	}
	return fmt.Errorf("the breaker of %s: %s", storyTarget, missing[s.chapter])
}

// heading says whose breaker the story is about.
func (s *story) heading() string {
	return fmt.Sprintf("Breaker of %s (%s:%d) in %s's sidecar", storyTarget, filepath.Base(s.object.File), s.object.Line, storyClient)
}
