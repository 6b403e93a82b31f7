package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// backendAddress names the environment variable that makes the test binary an application that listens there.
const backendAddress = "OUTRIDER_E2E_BACKEND"

// runBackend answers every request at once, but for those to /slow, which take their time in the middle of the answer.
func runBackend(address string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "backend %d\n", os.Getpid()) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		fmt.Fprintln(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { // ends with the process
		for {
			if res, err := http.Get("http://" + address + "/"); err == nil {
				_ = res.Body.Close()
				fmt.Println("ready")
				return
			}
		}
	}()
	fmt.Println(s.ListenAndServe())
}

// backend is an application in a process of its own.
type backend struct {
	address string
	cmd     *exec.Cmd
}

// start starts an application at an address and waits until it answers.
func startBackend(t *testing.T, address string) *backend {
	t.Helper()
	b := &backend{address: address, cmd: exec.Command(os.Args[0])}
	b.cmd.Env = append(os.Environ(), backendAddress+"="+address)
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the application says %q (%v)", line, err)
	}
	return b
}

// kill ends the process as kill -9 does, and waits for its end.
func (b *backend) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait() // it was killed, which is an error
}
