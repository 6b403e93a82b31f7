package config

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// appendJSONText writes a JSON string.
func appendJSONText(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a Go string always marshals
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// layout is what a struct type takes: its JSON field names and where they go.
type layout struct {
	names  []string
	fields map[string][]int // JSON name to index path through embedded structs
}

var layouts sync.Map // reflect.Type to *layout; types are few and fixed

func layoutOf(t reflect.Type) *layout {
	if l, ok := layouts.Load(t); ok {
		return l.(*layout)
	}
	l := &layout{fields: map[string][]int{}}
	l.collect(t, nil)
	layouts.Store(t, l)
	return l
}

func (l *layout) collect(t reflect.Type, at []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		index := append(at[:len(at):len(at)], i)
		if name == "" && (f.Anonymous || strings.Contains(options, "inline")) && f.Type.Kind() == reflect.Struct {
			l.collect(f.Type, index)
			continue
		}
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		if _, taken := l.fields[name]; !taken {
			l.names = append(l.names, name)
			l.fields[name] = index
		}
	}
}

// into fills a Go value as encoding/json would, but strictly: unknown fields, wrong types and numbers out of range are recorded.
func (d *decoder) into(n *node, v reflect.Value) {
	if d.full() {
		return
	}
	if n.shape == null {
		return // as in JSON, null leaves the zero value
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.custom(n, u)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.into(n, v.Elem())
	case reflect.Struct:
		d.intoStruct(n, v)
	case reflect.Map:
		d.intoMap(n, v)
	case reflect.Slice:
		d.intoSlice(n, v)
	case reflect.String:
		if n.shape == number && v.Type() == reflect.TypeFor[gatewayv1.Duration]() {
			d.add(n, idType, mismatch(n, "a duration"), gatewayDurationRemedy)
			return
		}
		if n.shape != text {
			d.wrong(n, "a string")
			return
		}
		v.SetString(n.value)
	case reflect.Bool:
		if n.shape != boolean {
			d.wrong(n, "a boolean")
			return
		}
		v.SetBool(n.truth())
	case reflect.Interface:
		var a any
		if json.Unmarshal(appendJSON(nil, n), &a) == nil && a != nil {
			v.Set(reflect.ValueOf(a))
		}
	default:
		d.intoNumber(n, v)
	}
}

func (d *decoder) intoStruct(n *node, v reflect.Value) {
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return
	}
	l := layoutOf(v.Type())
	for i := range n.fields {
		f := &n.fields[i]
		index, ok := l.fields[f.name]
		if !ok {
			d.unknown(f, l.names)
			continue
		}
		d.enter(f.name)
		d.into(f.value, v.FieldByIndex(index))
		d.leave()
	}
}

func (d *decoder) intoMap(n *node, v reflect.Value) {
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, len(n.fields)))
	for i := range n.fields {
		f := &n.fields[i]
		d.enterKey(f.name)
		value := reflect.New(t.Elem()).Elem()
		d.into(f.value, value)
		v.SetMapIndex(reflect.ValueOf(f.name).Convert(t.Key()), value)
		d.leave()
	}
}

func (d *decoder) intoSlice(n *node, v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		data, err := base64.StdEncoding.DecodeString(n.value)
		if n.shape != text || err != nil {
			d.wrong(n, "base64 text")
			return
		}
		v.SetBytes(data)
		return
	}
	if n.shape != list {
		d.wrong(n, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, c := range n.items {
		d.enterIndex(i)
		if c.shape == null {
			d.add(c, idType, "the list's item is empty", "give it a value or remove the dash")
		} else {
			d.into(c, v.Index(i))
		}
		d.leave()
	}
}

func (d *decoder) intoNumber(n *node, v reflect.Value) {
	if v.CanFloat() {
		f, err := strconv.ParseFloat(n.value, 64)
		if n.shape != number || err != nil {
			d.wrong(n, "a number")
			return
		}
		v.SetFloat(f)
		return
	}
	if n.shape != number {
		d.wrong(n, "a whole number")
		return
	}
	i, err := wholeNumber(n.value)
	switch {
	case err != nil:
		d.wrong(n, "a whole number")
	case v.CanInt() && !v.OverflowInt(i):
		v.SetInt(i)
	case v.CanUint() && i >= 0 && !v.OverflowUint(uint64(i)):
		v.SetUint(uint64(i))
	default:
		d.add(n, idRange, n.value+" is out of range", "write a smaller number")
	}
}

// wholeNumber reads a JSON number that has no fraction; 1.0 and 1e3 have none.
func wholeNumber(s string) (int64, error) {
	i, err := strconv.ParseInt(s, 10, 64)
	if err == nil {
		return i, nil
	}
	f, ferr := strconv.ParseFloat(s, 64)
	if ferr != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
		return 0, err
	}
	return int64(f), nil
}

// custom fills a type that reads itself from JSON.
func (d *decoder) custom(n *node, u json.Unmarshaler) {
	if err := u.UnmarshalJSON(appendJSON(nil, n)); err == nil {
		return
	}
	wanted := "another type"
	switch name := reflect.TypeOf(u).Elem().Name(); name {
	case "Quantity":
		wanted = "a quantity such as 500m, 2 or 128Mi"
	case "IntOrString":
		wanted = "a number or a name"
	case "Time", "MicroTime":
		wanted = "a time such as 2026-01-02T15:04:05Z"
	case "Duration":
		wanted = "a duration such as 1m30s"
	case "RateKey":
		wanted = "clientIdentity, sourceIP or header: NAME"
	case "StatusCode":
		wanted = "a status such as 503, 5xx or UNAVAILABLE"
	default:
		wanted = "a " + name
	}
	d.wrong(n, wanted)
}
