package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-mesh/outrider/examples"
	"github.com/outrider-mesh/outrider/local"
)

// The demo's gentle load, and how often it says how things are.
const (
	demoRate    = 50 // requests per second
	demoTarget  = "http://storefront:8080/"
	demoEditing = "traffic.yaml"
	redrawEvery = time.Second
	lineEvery   = 5 * time.Second
)

// demo is one run of the demo.
type demo struct {
	p      *program
	r      running
	dir    string
	mesh   *local.Mesh
	load   *load
	socket *socket
	splits *splits
	story  *story // nil where there is none to tell
	screen *screen
	notes  *notes
	began  time.Time
}

func (p *program) demo() *cobra.Command {
	d := &demo{p: p}
	cmd := &cobra.Command{
		Use:   "demo [flags]",
		Short: "Run a storefront with a gentle load, and show what the mesh does with it",
		Long: `Run a storefront that calls reviews (three versions), details, ratings and, by gRPC, stock, with stand-ins for the applications,
a gentle load and a WebSocket, and show each service's rate, success and latency, and the measured split between versions beside the configured one.
Then details is broken and healed, while the storefront's circuit breaker opens, answers with its fallback, probes and closes.
Its files are written to a directory: edit one and see the split move. The same by hand:

  outrider up -f DIR --stand-ins

Exit code 1 when, at the end, a measured split lies outside its statistical bounds, or the breaker did not do as it should. With a --for below
15s nothing is broken.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			taken := func(flag string) bool { return cmd.Flags().Changed(flag) }
			return d.run(cmd.Context(), taken)
		},
	}
	d.r.flags(cmd)
	cmd.Flags().StringVar(&d.dir, "dir", "", "directory to write the files to, kept at the end; files that are there already are used as they are (default: a temporary one)")
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument %q (%s --help says what there is)", args[0], cmd.CommandPath())
	}
	return nil
}

func (d *demo) run(ctx context.Context, chosen func(flag string) bool) error {
	if err := d.r.take(d.p, slog.LevelWarn); err != nil {
		return err
	}
	d.screen = newScreen(d.p.out)
	d.notes = &notes{out: d.p.err, keep: d.screen.terminal}
	cleanUp, err := d.writeFiles()
	if err != nil {
		return err
	}
	defer cleanUp()
	o := &d.r.options
	o.Paths, o.Namespace, o.StandIns, o.Talk = []string{d.dir}, "default", true, d.notes
	if !chosen("admin") {
		o.Admin = d.freeIfTaken(o.Admin, "--admin")
	}
	if !chosen("proxy") {
		o.Proxy = d.freeIfTaken(o.Proxy, "--proxy")
	}
	last := d.r.last
	d.r.last = 0 // the mesh outlives the load, for the summary
	mesh, meshContext, stop, err := d.r.start(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer stop()
	d.notes.settle()
	d.mesh, d.began = mesh, time.Now()
	d.splits = newSplits(mesh)
	if last == 0 || last >= storyTakes {
		d.story = newStory(mesh)
	}
	d.load, d.socket = newLoad(mesh.Ready().Proxy), newSocket(mesh.Ready().Proxy)
	err = d.show(ctx, meshContext, last)
	stop()
	return errors.Join(err, d.p.cutOff(mesh.Wait()))
}

// show runs the load and says how things are until ctx ends or the time is over, and then sums up.
func (d *demo) show(ctx, mesh context.Context, last time.Duration) error {
	if last > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, last)
		defer cancel()
	}
	var loading sync.WaitGroup
	loading.Go(func() { d.load.run(ctx) })
	loading.Go(func() { d.socket.run(ctx) })
	err := d.follow(ctx, mesh)
	loading.Wait() // ctx has ended: answers under way come in
	if err != nil {
		return err
	}
	return d.sumUp(mesh, errors.Is(ctx.Err(), context.DeadlineExceeded))
}

// follow says how things are, now and then, until ctx ends.
func (d *demo) follow(ctx, mesh context.Context) error {
	every := lineEvery
	if d.screen.terminal {
		every = redrawEvery
	} else {
		fmt.Fprint(d.p.out, d.invitation())
	}
	watch := time.NewTicker(200 * time.Millisecond) // notices changed weights soon
	defer watch.Stop()
	due := time.Now()
	if !d.screen.terminal {
		due = due.Add(every)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-watch.C:
			if err := d.notice(mesh); err != nil {
				return err
			}
			if now.Before(due) {
				continue
			}
			due = due.Add(every)
		}
		v, err := d.measure(mesh, 10*time.Second)
		if err != nil {
			return err
		}
		if d.screen.terminal {
			err = d.screen.draw(d.block(v) + d.below(v.elapsed))
		} else {
			_, err = io.WriteString(d.p.out, v.line())
		}
		if err != nil {
			return fmt.Errorf("cannot write: %w", err)
		}
	}
}

// notice follows what changes between two drawings. The story's events are told at once where nothing is drawn.
func (d *demo) notice(mesh context.Context) error {
	if err := d.splits.follow(mesh); err != nil {
		return err
	}
	events, err := d.story.follow(mesh, time.Since(d.began))
	if err != nil {
		return err
	}
	if d.screen.terminal {
		return nil
	}
	for _, e := range events {
		if _, err := io.WriteString(d.p.out, e.line()); err != nil {
			return fmt.Errorf("cannot write: %w", err)
		}
	}
	return nil
}

// sumUp says how it was over the whole time, and fails where a split lies outside its bounds or the story was not told to
// its end, unless it was interrupted.
func (d *demo) sumUp(mesh context.Context, timeOver bool) error {
	ctx, cancel := context.WithTimeout(mesh, time.Minute+5*d.r.options.ScrapeInterval)
	defer cancel()
	if err := d.settle(ctx); err != nil {
		return fmt.Errorf("cannot take the last measurements: %w", err)
	}
	if err := d.splits.follow(ctx); err != nil {
		return err
	}
	v, err := d.measure(ctx, time.Since(d.began))
	if err != nil {
		return err
	}
	v.whole = true
	if err := d.screen.draw(d.block(v)); err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	if sent, failed, why := d.load.result(); failed > 0 {
		fmt.Fprintf(d.p.err, "outrider: %d of the %d requests of the load got no answer, such as: %v\n", failed, sent, why)
	}
	if sent, failed, why := d.socket.result(); failed > 0 {
		fmt.Fprintf(d.p.err, "outrider: %d of the %d messages through %s did not come back, such as: %v\n", failed, sent, demoSocket, why)
	}
	if v.outside() {
		return &status{exitFindings, "a measured split lies outside its bounds"}
	}
	if err := d.story.unfinished(); err != nil && (timeOver || d.story.problem != nil) {
		return &status{exitFindings, err.Error()}
	}
	return nil
}

// settle waits until everything was scraped after the last answer. On a busy machine a scrape may miss its time: then the next one counts.
func (d *demo) settle(ctx context.Context) error {
	for {
		if err := d.mesh.Prometheus().Sync(ctx); err != nil {
			return err
		}
		late, err := d.mesh.Prometheus().Query(ctx, "up == 0", time.Now())
		if err != nil || len(late) == 0 {
			return err
		}
	}
}

// writeFiles writes the embedded files to the directory. A temporary one is removed at the end unless its files were edited.
func (d *demo) writeFiles() (cleanUp func(), err error) {
	files, err := fs.Sub(examples.Storefront, examples.StorefrontDir)
	if err != nil {
		return nil, err
	}
	temporary := d.dir == ""
	if temporary {
		if d.dir, err = os.MkdirTemp("", "outrider-demo-"); err != nil {
			return nil, fmt.Errorf("cannot make a directory for the demo's files: %w", err)
		}
	} else if err := os.MkdirAll(d.dir, 0o777); err != nil {
		return nil, usage("cannot make --dir: %v", err)
	}
	same := func() bool { return true }
	err = fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		path, before := filepath.Join(d.dir, name), same
		same = func() bool {
			now, err := os.ReadFile(path)
			return before() && err == nil && string(now) == string(content)
		}
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		return os.WriteFile(path, content, 0o666)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot write the demo's files: %w", err)
	}
	return func() {
		if temporary && same() {
			_ = os.RemoveAll(d.dir) // it is in the directory for temporary files anyway
		}
	}, nil
}

// freeIfTaken returns address, or a free port in its place where another program has it, and says so.
func (d *demo) freeIfTaken(address, flag string) string {
	l, err := net.Listen("tcp", address)
	if err == nil {
		_ = l.Close()
		return address
	}
	fmt.Fprintf(d.notes, "%s cannot be had (%v): taking a free port; %s names another\n", address, reason(err), flag)
	return "127.0.0.1:0"
}

// reason is an error's last part, without the addresses that lead to it.
func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

// notes are what the mesh tells people. On a terminal the last lines are kept for the drawing, elsewhere they pass.
type notes struct {
	out  io.Writer
	keep bool

	mu    sync.Mutex
	lines []string
}

const mostNotes = 2

func (n *notes) Write(text []byte) (int, error) {
	if !n.keep {
		return n.out.Write(text)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, strings.Split(strings.TrimRight(string(text), "\n"), "\n")...)
	n.lines = n.lines[max(0, len(n.lines)-mostNotes):]
	return len(text), nil
}

// settle forgets what was said until everything listens: the drawing says it.
func (n *notes) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = nil
}

func (n *notes) last() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.lines...)
}
