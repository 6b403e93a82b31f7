package compile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The Gateway API's conformance tests are Go: tables of requests and what must come of each, sent to a cluster. A reader runs such a
// test as far as it is data, with no cluster: it keeps the values of literals, follows loops over them, and notes each request
// that would be sent, with its expectation. What it cannot follow has no value.

// sent is one request of a conformance test. Structs are maps by field, lists are slices; a missing field is nil.
type sent struct {
	kind     string // package of the expectation: "http", "grpc"
	to       gatewayName
	from     string // of a mesh's test, the namespace of the client echo-v1
	sni      string
	expected map[string]any
	weights  map[string]any // of the distribution that the test then measures
}

// gatewayName is what a test knows a Gateway by.
type gatewayName struct {
	namespace, name string
	listener        string // "" is the first
}

type reader struct {
	tb     testing.TB
	consts map[string]any
	sent   []*sent
	// changed says that the test has changed the cluster's objects: what it sends from then on is of no use here.
	changed bool
}

// values holds variables by name, and those around them.
type values struct {
	outer *values
	names map[string]any
}

func (v *values) find(name string) (any, bool) {
	for ; v != nil; v = v.outer {
		if x, ok := v.names[name]; ok {
			return x, true
		}
	}
	return nil, false
}

func (v *values) assign(name string, x any, declare bool) {
	if name == "_" {
		return
	}
	for at := v; at != nil && !declare; at = at.outer {
		if _, ok := at.names[name]; ok {
			at.names[name] = x
			return
		}
	}
	v.names[name] = x
}

func (v *values) inner() *values { return &values{outer: v, names: map[string]any{}} }

// newReader reads the constants of the conformance suite in dir.
func newReader(tb testing.TB, dir string) *reader {
	r := &reader{tb: tb, consts: map[string]any{}}
	for _, pattern := range []string{"utils/suite/consts.go", "utils/echo/pod.go"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) != 1 {
			tb.Fatalf("%s: %v %v", pattern, files, err)
		}
		f := r.parse(files[0])
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				r.declare(g, &values{names: r.consts})
			}
		}
	}
	return r
}

func (r *reader) parse(file string) *ast.File {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		r.tb.Fatal(err)
	}
	return f
}

// test runs the conformance test in file, and returns its manifests and what it sends.
func (r *reader) test(file string) (manifests []string, requests []*sent) {
	r.sent, r.changed = nil, false
	ast.Inspect(r.parse(file), func(n ast.Node) bool {
		kv, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, _ := kv.Key.(*ast.Ident)
		switch x := kv.Value.(type) {
		case *ast.CompositeLit:
			if key != nil && key.Name == "Manifests" {
				list, _ := r.eval(x, &values{}).([]any)
				for _, m := range list {
					manifests = append(manifests, m.(string))
				}
			}
		case *ast.FuncLit:
			if key != nil && key.Name == "Test" {
				r.block(x.Body.List, &values{names: map[string]any{}})
				return false
			}
		}
		return true
	})
	return manifests, r.sent
}

func (r *reader) block(list []ast.Stmt, in *values) {
	for _, s := range list {
		r.statement(s, in)
	}
}

func (r *reader) statement(s ast.Stmt, in *values) {
	switch s := s.(type) {
	case *ast.DeclStmt:
		if g, ok := s.Decl.(*ast.GenDecl); ok {
			r.declare(g, in)
		}
	case *ast.AssignStmt:
		for i, l := range s.Lhs {
			name, ok := l.(*ast.Ident)
			if !ok {
				continue
			}
			var x any
			if len(s.Rhs) == len(s.Lhs) || i == 0 {
				x = r.eval(s.Rhs[min(i, len(s.Rhs)-1)], in)
			}
			in.assign(name.Name, x, s.Tok == token.DEFINE)
			if w, ok := x.(map[string]any); ok && name.Name == "expectedWeights" && len(r.sent) > 0 {
				r.sent[len(r.sent)-1].weights = w
			}
		}
	case *ast.ExprStmt:
		r.eval(s.X, in)
	case *ast.BlockStmt:
		r.block(s.List, in.inner())
	case *ast.IfStmt:
		if truth, ok := r.eval(s.Cond, in).(bool); ok && truth {
			r.block(s.Body.List, in.inner())
		} else if ok && s.Else != nil {
			r.statement(s.Else, in)
		}
	case *ast.SwitchStmt:
		if tag := r.eval(s.Tag, in); tag != nil {
			for _, c := range s.Body.List {
				for _, x := range c.(*ast.CaseClause).List {
					if r.eval(x, in) == tag {
						r.block(c.(*ast.CaseClause).Body, in.inner())
					}
				}
			}
		}
	case *ast.RangeStmt:
		list, _ := r.eval(s.X, in).([]any)
		for i, x := range list {
			round := in.inner()
			for k, bound := range map[ast.Expr]any{s.Key: i, s.Value: x} {
				if name, ok := k.(*ast.Ident); ok {
					round.names[name.Name] = bound
				}
			}
			r.block(s.Body.List, round)
		}
	}
}

func (r *reader) declare(g *ast.GenDecl, in *values) {
	for _, s := range g.Specs {
		if v, ok := s.(*ast.ValueSpec); ok {
			for i, name := range v.Names {
				if i < len(v.Values) {
					in.assign(name.Name, r.eval(v.Values[i], in), true)
				} else {
					in.assign(name.Name, nil, true)
				}
			}
		}
	}
}

func (r *reader) eval(e ast.Expr, in *values) any {
	switch e := e.(type) {
	case *ast.BasicLit:
		switch e.Kind {
		case token.STRING:
			s, _ := strconv.Unquote(e.Value)
			return s
		case token.INT:
			n, _ := strconv.Atoi(e.Value)
			return n
		case token.FLOAT:
			f, _ := strconv.ParseFloat(e.Value, 64)
			return f
		}
	case *ast.Ident:
		if x, ok := in.find(e.Name); ok {
			return x
		}
		switch e.Name {
		case "true":
			return true
		case "false":
			return false
		}
	case *ast.ParenExpr:
		return r.eval(e.X, in)
	case *ast.UnaryExpr:
		if e.Op == token.AND {
			return r.eval(e.X, in)
		}
	case *ast.BinaryExpr:
		if a, b := r.eval(e.X, in), r.eval(e.Y, in); e.Op == token.EQL && a != nil && b != nil {
			return a == b
		}
	case *ast.IndexExpr:
		list, _ := r.eval(e.X, in).([]any)
		if i, ok := r.eval(e.Index, in).(int); ok && i < len(list) {
			return list[i]
		}
	case *ast.SelectorExpr:
		return r.field(e, in)
	case *ast.CompositeLit:
		return r.literal(e, in)
	case *ast.CallExpr:
		return r.call(e, in)
	}
	return nil
}

// field is a struct's field, a constant of the suite, or the name of another package's.
func (r *reader) field(e *ast.SelectorExpr, in *values) any {
	if m, ok := r.eval(e.X, in).(map[string]any); ok {
		return m[e.Sel.Name]
	}
	x, ok := e.X.(*ast.Ident)
	if !ok {
		return nil
	}
	if _, local := in.find(x.Name); local {
		return nil
	}
	if c, ok := r.consts[e.Sel.Name]; ok {
		return c
	}
	return x.Name + "." + e.Sel.Name
}

func (r *reader) literal(e *ast.CompositeLit, in *values) any {
	if _, ok := e.Type.(*ast.ArrayType); ok {
		list := []any{}
		for _, x := range e.Elts {
			list = append(list, r.eval(x, in))
		}
		return list
	}
	m := map[string]any{}
	if t, ok := e.Type.(*ast.SelectorExpr); ok {
		m["type"] = t.X.(*ast.Ident).Name + "." + t.Sel.Name
	}
	_, isMap := e.Type.(*ast.MapType)
	if len(e.Elts) > 0 && e.Type == nil {
		if _, ok := e.Elts[0].(*ast.KeyValueExpr); !ok { // a list whose type is left out
			list := []any{}
			for _, x := range e.Elts {
				list = append(list, r.eval(x, in))
			}
			return list
		}
	}
	for _, x := range e.Elts {
		kv, ok := x.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := kv.Key.(*ast.Ident); ok && !isMap {
			m[key.Name] = r.eval(kv.Value, in)
		} else if key, ok := r.eval(kv.Key, in).(string); ok {
			m[key] = r.eval(kv.Value, in)
		}
	}
	return m
}

func (r *reader) call(e *ast.CallExpr, in *values) any {
	name, on := "", ""
	switch f := e.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
		if x, ok := f.X.(*ast.Ident); ok {
			on = x.Name
		}
	case *ast.ArrayType:
		return nil
	}
	arg := func(i int) any { return r.eval(e.Args[i], in) }
	switch {
	case name == "append":
		list, _ := arg(0).([]any)
		for i := 1; i < len(e.Args); i++ {
			if more, ok := arg(i).([]any); ok && e.Ellipsis.IsValid() {
				list = append(list, more...)
			} else {
				list = append(list, arg(i))
			}
		}
		return list
	case name == "len":
		if list, ok := arg(0).([]any); ok {
			return len(list)
		}
	case on == "require":
		for i := range e.Args {
			arg(i)
		}
	case (name == "string" || on == "v1") && len(e.Args) == 1:
		return arg(0)
	case name == "Delete" || name == "Create" || name == "Update" || name == "Patch":
		r.changed = true
	case on == "strings" && name == "Split":
		var list []any
		if s, ok := arg(0).(string); ok {
			for _, part := range strings.Split(s, arg(1).(string)) {
				list = append(list, part)
			}
		}
		return list
	case on == "t" && name == "Run":
		if f, ok := e.Args[1].(*ast.FuncLit); ok {
			r.block(f.Body.List, in.inner())
		}
	case name == "NewGatewayRef":
		m, _ := arg(0).(map[string]any)
		a := gatewayName{namespace: text(m["Namespace"]), name: text(m["Name"])}
		if len(e.Args) > 1 {
			a.listener = text(arg(1))
		}
		return a
	case strings.HasPrefix(name, "Gateway") && strings.HasSuffix(name, "MustBeAccepted"):
		for i := range e.Args {
			if a, ok := arg(i).(gatewayName); ok {
				return a
			}
		}
	case name == "ConnectToApp":
		return map[string]any{"client": text(r.consts["MeshNamespace"])}
	case name == "ConnectToAppInNamespace":
		return map[string]any{"client": text(arg(3))}
	case name == "MakeRequestAndExpectEventuallyConsistentResponse" && (on == "http" || on == "grpc"):
		r.send(&sent{kind: on}, arg(3), arg(4))
	case name == "MakeTLSRequestAndExpectEventuallyConsistentResponse":
		r.send(&sent{kind: "http", sni: text(arg(7))}, arg(3), arg(8))
	case name == "MakeRequestAndExpectEventuallyConsistentResponse":
		if c, ok := in.find(on); ok {
			m, _ := c.(map[string]any)
			r.send(&sent{kind: "http", from: text(m["client"])}, nil, arg(1))
		}
	}
	return nil
}

func (r *reader) send(s *sent, to, expected any) {
	s.to, _ = to.(gatewayName)
	s.expected, _ = expected.(map[string]any)
	if r.changed {
		return
	}
	if request, ok := s.expected["Request"].(map[string]any); ok {
		if host, ok := request["Host"]; ok && host == nil {
			return // an address that the cluster gives
		}
	}
	if s.expected == nil || (s.to == gatewayName{} && s.from == "") {
		r.tb.Errorf("cannot follow whom a request is sent to, or what is expected: %v %v", to, expected)
		return
	}
	r.sent = append(r.sent, s)
}

// text, number and dig read what may be absent.
func text(x any) string {
	s, _ := x.(string)
	return s
}

func number(x any) int {
	n, _ := x.(int)
	return n
}

func dig(x any, path ...string) any {
	for _, p := range path {
		m, _ := x.(map[string]any)
		x = m[p]
	}
	return x
}
