package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// view is how things are at one moment.
type view struct {
	elapsed   time.Duration
	whole     bool // over the whole time, not the last seconds
	services  []serviceView
	splits    []*split
	instances []instanceView
}

// serviceView is what clients see of one service; NaN where nothing was measured.
type serviceView struct {
	name     string
	rate     float64 // requests per second
	success  float64 // share of the answers below 500 and, by gRPC, of those that blame nobody but the client
	p50, p99 float64 // milliseconds
	breaker  string  // state of the breaker that is least at ease; "" where there is none
}

type instanceView struct {
	name  string
	count float64
}

// measure asks the embedded Prometheus, at one moment, about the time that has passed.
func (d *demo) measure(ctx context.Context, over time.Duration) (*view, error) {
	now := time.Now()
	v := &view{elapsed: now.Sub(d.began), splits: d.splits.of}
	seconds := max(2, math.Ceil(over.Seconds()))
	window := fmt.Sprintf("[%ds]", int(seconds))
	const seen = `{response_code!="101",reporter="source"` // a WebSocket is shown by its messages
	by := func(expression string) (map[string]float64, error) {
		samples, err := d.mesh.Prometheus().Query(ctx, expression, now)
		out := map[string]float64{}
		for _, s := range samples {
			for _, value := range s.Labels {
				out[value] = s.Value
			}
		}
		return out, err
	}
	const group = " by (destination_service_name) "
	const latency = "sum by (le, destination_service_name) (rate(istio_request_duration_milliseconds_bucket" + seen + "}"
	queries := []string{
		"sum" + group + "(rate(istio_requests_total" + seen + "}" + window + "))",
		"sum" + group + "(rate(istio_requests_total" + seen + `,response_code=~"[1-4]..",grpc_response_status!~"2|4|8|13|14|15"}` + window + "))",
		"histogram_quantile(0.5, " + latency + window + ")))",
		"histogram_quantile(0.99, " + latency + window + ")))",
		`sum by (pod) (istio_requests_total{response_code!="101",reporter="destination"})`,
	}
	results := make([]map[string]float64, len(queries))
	for i, q := range queries {
		var err error
		if results[i], err = by(q); err != nil {
			return nil, err
		}
	}
	breakers, err := d.breakers(ctx, now)
	if err != nil {
		return nil, err
	}
	for name, rate := range results[0] {
		s := serviceView{name, rate, results[1][name] / rate, results[2][name], results[3][name], breakers[name]}
		v.services = append(v.services, s)
	}
	slices.SortFunc(v.services, func(a, b serviceView) int { return strings.Compare(a.name, b.name) })
	v.services = append(v.services, d.socket.measure(now, over))
	for name, count := range results[4] {
		v.instances = append(v.instances, instanceView{name, count})
	}
	slices.SortFunc(v.instances, func(a, b instanceView) int { return strings.Compare(a.name, b.name) })
	return v, d.splits.measure(ctx, now)
}

// breakers returns the state of the breakers before each service, by its name: of several clients' the one that tells most.
func (d *demo) breakers(ctx context.Context, at time.Time) (map[string]string, error) {
	samples, err := d.mesh.Prometheus().Query(ctx, "max by (service, state) (outrider_breaker_state == 1)", at)
	out := map[string]string{}
	order := []string{"", "disabled", "forced_closed", "closed", "half_open", "forced_open", "open"}
	for _, s := range samples {
		name, state := short(s.Labels["service"]), s.Labels["state"]
		if slices.Index(order, state) > slices.Index(order, out[name]) {
			out[name] = state
		}
	}
	return out, err
}

// outside says whether a measured split lies outside its bounds.
func (v *view) outside() bool {
	for _, s := range v.splits {
		for _, sh := range s.shares {
			if _, _, inside := s.bounds(sh); !inside {
				return true
			}
		}
	}
	return false
}

// line is the view in one line.
func (v *view) line() string {
	var parts []string
	for _, s := range v.services {
		parts = append(parts, fmt.Sprintf("%s %s/s %s p99 %s", s.name, number(s.rate, 1), percent(s.success), milliseconds(s.p99)))
	}
	for _, s := range v.splits {
		var shares []string
		for _, sh := range s.shares {
			shares = append(shares, fmt.Sprintf("%s %s (%s)", sh.name, percent(ratio(sh.count, s.total())), percent(s.part(sh))))
		}
		parts = append(parts, short(s.host)+" split "+strings.Join(shares, ", "))
	}
	return fmt.Sprintf("%4.0fs  %s\n", v.elapsed.Seconds(), strings.Join(parts, " | "))
}

// block is the view as tables.
func (d *demo) block(v *view) string {
	var b strings.Builder
	over := "the last 10 s"
	if v.whole {
		over = fmt.Sprintf("the whole %.0f s", v.elapsed.Seconds())
	}
	heading := func(format string, args ...any) {
		b.WriteString("\n" + d.screen.style(bold, fmt.Sprintf(format, args...)) + "\n")
	}
	table := func(rows func(w *tabwriter.Writer)) {
		w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		rows(w)
		_ = w.Flush() // into memory
	}
	heading("Services, as their clients see them, over %s", over)
	table(func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "  service\trate\tsuccess\tp50\tp99\tbreaker")
		for _, s := range v.services {
			fmt.Fprintf(w, "  %s\t%s/s\t%s\t%s\t%s\t%s\n", s.name, number(s.rate, 1), percent(s.success), milliseconds(s.p50), milliseconds(s.p99), cmp.Or(s.breaker, "-"))
		}
	})
	for _, s := range v.splits {
		heading("Split of %s (%s:%d), %d requests since it was set", short(s.host), filepath.Base(s.file), s.line, s.total())
		table(func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "  to\tweight\tmeasured\trequests\tmust lie in (%s)\n", percent(confidence))
			for _, sh := range s.shares {
				least, most, inside := s.bounds(sh)
				verdict := d.screen.style(green, "ok")
				switch {
				case s.total() == 0:
					verdict = "-"
				case !inside:
					verdict = d.screen.style(red, "OUTSIDE")
				}
				fmt.Fprintf(w, "  %s\t%s\t%s\t%d\t%d to %d\t%s\n", sh.name, percent(s.part(sh)), percent(ratio(sh.count, s.total())), sh.count, least, most, verdict)
			}
		})
	}
	if s := d.story; s != nil && v.whole {
		heading("%s", s.heading())
		for _, e := range s.events {
			b.WriteString(e.line())
		}
		b.WriteString(strings.Repeat(" ", storyIndent) + "seen in outrider_breaker_state, outrider_breaker_transitions_total, hystrix_command_event_total; /hystrix.stream has it too\n")
	}
	if v.whole {
		b.WriteString("\n")
	}
	b.WriteString(d.label("Requests") + wrapped(v.instances))
	return b.String()
}

// label opens the lines about something; what they say begins in the eleventh column.
func (d *demo) label(name string) string {
	return d.screen.style(bold, name) + strings.Repeat(" ", len(indent)-len(name))
}

const indent = "          "

// wrapped lists instances with their counts, a few a line.
func wrapped(instances []instanceView) string {
	var b strings.Builder
	for i, in := range instances {
		if i > 0 && i%5 == 0 {
			b.WriteString("\n" + indent)
		}
		fmt.Fprintf(&b, "%-18s ", in.name+" "+number(in.count, 0))
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// below is what stands under a drawing's tables, which fits 24 lines with it: the story while it is told and a little longer,
// else what to try.
func (d *demo) below(elapsed time.Duration) string {
	s := d.story
	if s == nil || s.problem != nil || len(s.events) == 0 || s.finished && elapsed > s.events[len(s.events)-1].at+5*time.Second {
		return d.invitation()
	}
	var b strings.Builder
	b.WriteString(d.screen.style(bold, s.heading()) + "\n")
	for _, e := range s.events[max(0, len(s.events)-5):] {
		b.WriteString(e.line())
	}
	return b.String()
}

// invitation says what to try.
func (d *demo) invitation() string {
	r := d.mesh.Ready()
	var b strings.Builder
	b.WriteString(d.label("Try") + "curl -x " + r.Proxy + " http://reviews:9080/\n")
	b.WriteString(indent + "grpcurl -plaintext -authority stock:7070 " + r.Proxy + " outrider.echo.v1.Echo/Echo\n")
	fmt.Fprintf(&b, "%scurl '%s/api/v1/query?query=sum(rate(istio_requests_total[10s]))'\n", indent, r.Admin)
	fmt.Fprintf(&b, "%s%s/ in a browser\n", indent, r.Admin)
	if s := d.story; s != nil && s.finished {
		b.WriteString(d.label("Break") + "curl -X POST '" + s.standIn + "?status=503'; without ?status it heals\n")
	}
	b.WriteString(d.label("Edit") + filepath.Join(d.dir, demoEditing) + ": change a weight, save, and the split moves\n")
	for _, told := range d.notes.last() {
		b.WriteString(indent + told + "\n")
	}
	return b.String()
}

// short is a host's first label.
func short(host string) string {
	name, _, _ := strings.Cut(host, ".")
	return name
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return math.NaN()
	}
	return float64(part) / float64(whole)
}

// number writes n, "-" where there is none.
func number(n float64, decimals int) string {
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return "-"
	}
	return strconv.FormatFloat(n, 'f', decimals, 64)
}

func percent(share float64) string {
	if math.IsNaN(share) || math.IsInf(share, 0) {
		return "-"
	}
	return strconv.FormatFloat(math.Round(share*10000)/100, 'f', -1, 64) + " %"
}

func milliseconds(ms float64) string {
	if math.IsNaN(ms) || math.IsInf(ms, 0) {
		return "-"
	}
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}
