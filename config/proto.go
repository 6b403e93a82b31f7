package config

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// shapeOf is what a message type takes: its JSON names.
type messageLayout struct {
	names  []string
	fields map[string]protoreflect.FieldDescriptor
}

var messageLayouts sync.Map // protoreflect.FullName to *messageLayout; types are few and fixed

func messageLayoutOf(m protoreflect.MessageDescriptor) *messageLayout {
	if l, ok := messageLayouts.Load(m.FullName()); ok {
		return l.(*messageLayout)
	}
	l := &messageLayout{fields: map[string]protoreflect.FieldDescriptor{}}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		l.names = append(l.names, f.JSONName())
		l.fields[f.JSONName()] = f
	}
	// The one field whose CRD also has the proto spelling.
	if m.FullName() == "istio.networking.v1alpha3.HTTPRoute" {
		l.fields["mirror_percent"] = l.fields["mirrorPercent"]
	}
	messageLayouts.Store(m.FullName(), l)
	return l
}

// message fills a protobuf message as protojson would with two differences, both Istio's own: field names are those of the
// CRDs (camelCase only), and durations are Go's (1m30s, not 90s alone). All that does not fit is recorded, not only the first.
func (d *decoder) message(n *node, m protoreflect.Message) {
	if d.full() || n.shape == null || d.wellKnown(n, m) {
		return
	}
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return
	}
	l := messageLayoutOf(m.Descriptor())
	for i := range n.fields {
		f := &n.fields[i]
		fd := l.fields[f.name]
		if fd == nil {
			if r := removed[string(m.Descriptor().Name())+"."+f.name]; r != "" {
				d.enter(f.name)
				d.addAt(f.line, f.column, idUnknown, "Istio has removed this field", r)
				d.leave()
				continue
			}
			d.unknown(f, l.names)
			continue
		}
		if f.value.shape == null {
			continue
		}
		d.enter(f.name)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if other := m.WhichOneof(o); other != nil {
				d.addAt(f.line, f.column, idExclusive, fmt.Sprintf("%s and %s exclude each other", other.JSONName(), fd.JSONName()), "remove one of them")
			}
		}
		d.protoField(f.value, m, fd)
		d.leave()
	}
}

// removed names fields that Istio once had, with what replaced them.
var removed = map[string]string{
	"HTTPRoute.websocketUpgrade":                 "remove it; upgrades are always allowed",
	"HTTPRoute.appendHeaders":                    "use headers.request.add",
	"HTTPRoute.appendRequestHeaders":             "use headers.request.add",
	"HTTPRoute.appendResponseHeaders":            "use headers.response.add",
	"HTTPRoute.removeRequestHeaders":             "use headers.request.remove",
	"HTTPRoute.removeResponseHeaders":            "use headers.response.remove",
	"HTTPRouteDestination.appendRequestHeaders":  "use headers.request.add",
	"HTTPRouteDestination.appendResponseHeaders": "use headers.response.add",
	"HTTPRouteDestination.removeRequestHeaders":  "use headers.request.remove",
	"HTTPRouteDestination.removeResponseHeaders": "use headers.response.remove",
	"PortSelector.name":                          "use number",
	"Abort.percent":                              "use percentage: {value: ...}",
}

func (d *decoder) protoField(n *node, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	switch {
	case fd.IsMap():
		d.protoMap(n, m.Mutable(fd).Map(), fd)
	case fd.IsList():
		if n.shape != list {
			d.wrong(n, "a list")
			return
		}
		l := m.Mutable(fd).List()
		for i, c := range n.items {
			d.enterIndex(i)
			if c.shape == null {
				d.add(c, idType, "the list's item is empty", "give it a value or remove the dash")
			} else if fd.Message() != nil {
				d.message(c, l.AppendMutable().Message())
			} else if v, ok := d.protoScalar(c, fd); ok {
				l.Append(v)
			}
			d.leave()
		}
	case fd.Message() != nil:
		d.message(n, m.Mutable(fd).Message())
	default:
		if v, ok := d.protoScalar(n, fd); ok {
			m.Set(fd, v)
		}
	}
}

func (d *decoder) protoMap(n *node, p protoreflect.Map, fd protoreflect.FieldDescriptor) {
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return
	}
	for i := range n.fields {
		f := &n.fields[i]
		d.enterKey(f.name)
		key := protoreflect.ValueOfString(f.name).MapKey()
		if fd.MapKey().Kind() != protoreflect.StringKind {
			v, ok := d.protoScalar(&node{shape: number, value: f.name, line: f.line, column: f.column}, fd.MapKey())
			if !ok {
				d.leave()
				continue
			}
			key = v.MapKey()
		}
		if fd.MapValue().Message() != nil {
			d.message(f.value, p.Mutable(key).Message())
		} else if f.value.shape == null {
			d.wrong(f.value, "a value")
		} else if v, ok := d.protoScalar(f.value, fd.MapValue()); ok {
			p.Set(key, v)
		}
		d.leave()
	}
}

// protoScalar reads one plain value; false says that it did not fit and is recorded.
func (d *decoder) protoScalar(n *node, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if n.shape != text {
			d.wrong(n, "a string")
			return none, false
		}
		return protoreflect.ValueOfString(n.value), true
	case protoreflect.BytesKind:
		data, err := base64.StdEncoding.DecodeString(n.value)
		if n.shape != text || err != nil {
			d.wrong(n, "base64 text")
			return none, false
		}
		return protoreflect.ValueOfBytes(data), true
	case protoreflect.BoolKind:
		if n.shape != boolean {
			d.wrong(n, "a boolean")
			return none, false
		}
		return protoreflect.ValueOfBool(n.truth()), true
	case protoreflect.EnumKind:
		return d.protoEnum(n, fd.Enum())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		f, err := strconv.ParseFloat(n.value, 64)
		if n.shape != number || err != nil {
			d.wrong(n, "a number")
			return none, false
		}
		if fd.Kind() == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(f)), true
		}
		return protoreflect.ValueOfFloat64(f), true
	}
	return d.protoInteger(n, fd.Kind())
}

func (d *decoder) protoInteger(n *node, k protoreflect.Kind) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	i, err := wholeNumber(n.value)
	if n.shape != number || err != nil {
		d.wrong(n, "a whole number")
		return none, false
	}
	fits := true
	value := none
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		fits, value = i == int64(int32(i)), protoreflect.ValueOfInt32(int32(i))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		fits, value = i == int64(uint32(i)), protoreflect.ValueOfUint32(uint32(i))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		fits, value = i >= 0, protoreflect.ValueOfUint64(uint64(i))
	default:
		value = protoreflect.ValueOfInt64(i)
	}
	if !fits {
		remedy := "write a smaller number"
		if i < 0 {
			remedy = "write a number of at least 0"
		}
		d.add(n, idRange, n.value+" is out of range", remedy)
	}
	return value, fits
}

func (d *decoder) protoEnum(n *node, e protoreflect.EnumDescriptor) (protoreflect.Value, bool) {
	if n.shape == text {
		if v := e.Values().ByName(protoreflect.Name(n.value)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
	}
	var names []string
	for i := range e.Values().Len() {
		names = append(names, string(e.Values().Get(i).Name()))
	}
	remedy := "write one of " + strings.Join(names, ", ")
	if guess := nearest(n.value, names); guess != "" && n.shape == text {
		remedy = "did you mean " + guess + "?"
	}
	message := "is not one of the values allowed"
	if n.value != "" {
		message = clip(n.value) + " " + message
	}
	d.add(n, idEnum, message, remedy)
	return protoreflect.Value{}, false
}

// wellKnown fills the messages that have a JSON form of their own; false says that m is none of them.
func (d *decoder) wellKnown(n *node, m protoreflect.Message) bool {
	name := m.Descriptor().FullName()
	if name.Parent() != "google.protobuf" {
		return false
	}
	switch name.Name() {
	case "Duration":
		t, err := time.ParseDuration(n.value)
		if n.shape != text || err != nil {
			d.add(n, idDuration, mismatch(n, "a duration"), "write such as 100ms, 5s or 1m30s")
			return true
		}
		proto.Merge(m.Interface(), durationpb.New(t))
	case "BoolValue", "StringValue", "BytesValue", "Int32Value", "UInt32Value", "Int64Value", "UInt64Value", "FloatValue", "DoubleValue":
		fd := m.Descriptor().Fields().ByName("value")
		if v, ok := d.protoScalar(n, fd); ok {
			m.Set(fd, v)
		}
	default: // Struct, Value, ListValue, Any, Timestamp, FieldMask, Empty
		if err := protojson.Unmarshal(appendJSON(nil, n), m.Interface()); err != nil {
			d.wrong(n, "a "+string(name.Name()))
		}
	}
	return true
}
