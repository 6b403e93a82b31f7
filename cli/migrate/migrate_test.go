package migrate

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

var update = flag.Bool("update", false, "rewrite the .golden files")

// TestGolden translates each file of testdata; the objects must read without an error and compile.
func TestGolden(t *testing.T) {
	f := func(file string, run func(string, []byte, Options) (Result, error), o Options) {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			r, err := run(file, data, o)
			if err != nil {
				t.Fatal(err)
			}
			read := config.Decode("out.yaml", r.YAML)
			if len(read.Findings) > 0 || len(read.Objects) != r.Objects || read.Broken {
				t.Errorf("%d objects of %d can be read: %v", len(read.Objects), r.Objects, read.Findings)
			}
			_, findings := compile.New(read.Objects, compile.Options{})
			for _, w := range findings {
				if w.Severity == config.Error {
					t.Errorf("check says: %s", w)
				}
			}
			var out strings.Builder
			for _, n := range r.Notes {
				fmt.Fprintf(&out, "#! %d wrong=%t %s\n", n.Line, n.Wrong, n.Text)
			}
			out.Write(r.YAML)
			golden := filepath.Join("testdata", file+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
			}
		})
	}
	f("application.properties", Hystrix, Options{Hosts: map[string]string{
		"FooClient#bar(String)": "foo.shop.svc.cluster.local:8080/bar*", "FooClient": "foo", "BarClient": "bar", "Extra": "extra",
	}})
	f("hystrix.yml", Hystrix, Options{Namespace: "shop"})
	f("application.yml", Resilience4j, Options{Hosts: map[string]string{"ratings": "ratings", "extra": "extra:80"}})
	f("old.properties", Resilience4j, Options{})
	f("orders.yml", Hystrix, Options{})
	f("config.properties", Hystrix, Options{})
	f("profiles.yml", Hystrix, Options{})
	f("shared.yml", Resilience4j, Options{})
}

func TestNothing(t *testing.T) {
	f := func(want string, run func(string, []byte, Options) (Result, error), name, text string) {
		t.Helper()
		_, err := run(name, []byte(text), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	f("no property of the tree \"hystrix\"", Hystrix, "a.properties", "a=b")
	f("no property of the tree \"resilience4j\"", Resilience4j, "a.yml", "a: b")
	f("no property", Resilience4j, "a.yml", "")
	f("cannot read the YAML", Resilience4j, "a.yml", "a: [")
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	f("cannot read the YAML", Resilience4j, "a.yml", bomb)
	if _, err := Hystrix("a", nil, Options{}); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
}

func TestProperties(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		var got []string
		for _, e := range readProperties(text) {
			got = append(got, fmt.Sprintf("%d %q %q", e.line, e.key, e.value))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q:\ngot  %q\nwant %q", text, got, want)
		}
	}
	f("")
	f("# a=b\n  ! c\n\n \t\n")
	f("a=b\nc:d\ne f\ng", `1 "a" "b"`, `2 "c" "d"`, `3 "e" "f"`, `4 "g" ""`)
	f(" a  =  b = c \r\nd = : e", `1 "a" "b = c "`, `2 "d" ": e"`)
	f(`a\ b\=c\:=d\te`, `1 "a b=c:" "d\te"`)
	f("a=1,\\\n   2,\\\n\t3\nb=\\\\\nc=\\", `1 "a" "1,2,3"`, `4 "b" "\\"`, `5 "c" "\\"`)
	f(`a=\u00fc\ud83d\ude00\u12\q`, `1 "a" "ü😀u12q"`)
	f("a#b(String)=x#y", `1 "a#b(String)" "x#y"`)
}

func TestDuration(t *testing.T) {
	f := func(s string, want time.Duration, ok bool) {
		t.Helper()
		if d, is := parseDuration(s); is != ok || ok && d != want {
			t.Errorf("%q is %s, %t", s, d, is)
		}
	}
	f("10s", 10*time.Second, true)
	f("500", 500*time.Millisecond, true)
	f("2m", 2*time.Minute, true)
	f("1 h", time.Hour, true)
	f("2d", 48*time.Hour, true)
	f("PT1M30S", 90*time.Second, true)
	f("pt0.5s", 500*time.Millisecond, true)
	f("P1D", 24*time.Hour, true)
	f("P1DT1H", 25*time.Hour, true)
	for _, s := range []string{"", "s", "-1s", "1.5s", "5y", "P", "PT", "PT5ms", "P1M", "P-1D", "99999999999999999999s", "9223372036854775807h"} {
		f(s, 0, false)
	}
}

// FuzzRead feeds both readers anything; what they make of it must be readable.
func FuzzRead(f *testing.F) {
	f.Add("hystrix.command.a.circuitBreaker.enabled=true", "x.properties")
	f.Add("resilience4j.bulkhead: {instances: {a: {maxConcurrentCalls: 1}}}", "x.yml")
	f.Add("hystrix.command.- .circuitBreaker.sleepWindowInMilliseconds=-5\nhystrix.command.#.circuitBreaker.forceOpen=true", "x.properties")
	f.Fuzz(func(t *testing.T, text, name string) {
		for _, run := range []func(string, []byte, Options) (Result, error){Hystrix, Resilience4j} {
			r, err := run(name, []byte(text), Options{})
			if err != nil {
				continue
			}
			if read := config.Decode("out.yaml", r.YAML); len(read.Findings) > 0 || len(read.Objects) != r.Objects {
				t.Fatalf("%d objects of %d can be read: %v\n%s", len(read.Objects), r.Objects, read.Findings, r.YAML)
			}
		}
	})
}
