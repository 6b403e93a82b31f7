package standin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// What echo.proto says; TestSchemaIsTheProtoFile holds the two together. It is made at run time, when somebody speaks
// gRPC: generated code would register itself at the start of every program that links it.
const (
	echoPackage = "outrider.echo.v1"
	echoService = echoPackage + ".Echo"
	echoMethod  = "/" + echoService + "/Echo"
)

// messages are the types of echo.proto.
type messages struct {
	files             protoregistry.Files // that one file
	file              protoreflect.FileDescriptor
	request, response protoreflect.MessageDescriptor
}

var schema = sync.OnceValue(func() *messages {
	file, err := protodesc.NewFile(describeEcho(), protoregistry.GlobalFiles)
	if err != nil {
		panic(fmt.Sprintf("echo.proto is wrong: %v", err)) // nothing from outside is in it
	}
	m := &messages{file: file, request: file.Messages().ByName("EchoRequest"), response: file.Messages().ByName("EchoResponse")}
	if err := m.files.RegisterFile(file); err != nil {
		panic(fmt.Sprintf("echo.proto is wrong: %v", err))
	}
	return m
})

func describeEcho() *descriptorpb.FileDescriptorProto {
	const (
		text    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		number  = descriptorpb.FieldDescriptorProto_TYPE_INT32
		message = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	)
	field := func(n int32, name string, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{
			Name: &name, Number: &n, Type: &kind, JsonName: &name,
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		if of != "" {
			f.TypeName = &of
		}
		return f
	}
	repeated := func(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		return f
	}
	method := func(name string, takesStream, givesStream bool) *descriptorpb.MethodDescriptorProto {
		m := &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: proto.String("." + echoPackage + ".EchoRequest"), OutputType: proto.String("." + echoPackage + ".EchoResponse"),
		}
		if takesStream {
			m.ClientStreaming = proto.Bool(true)
		}
		if givesStream {
			m.ServerStreaming = proto.Bool(true)
		}
		return m
	}
	return &descriptorpb.FileDescriptorProto{
		Name: proto.String("outrider/echo/v1/echo.proto"), Package: proto.String(echoPackage), Syntax: proto.String("proto3"),
		Dependency: []string{durationpb.File_google_protobuf_duration_proto.Path(), structpb.File_google_protobuf_struct_proto.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Echo"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Echo", false, false), method("Repeat", false, true), method("Collect", true, false), method("Chat", true, true),
		}}},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("EchoRequest"), Field: []*descriptorpb.FieldDescriptorProto{
				field(1, "message", text, ""), field(2, "count", number, ""), field(3, "interval", message, ".google.protobuf.Duration"),
			}},
			{
				Name: proto.String("EchoResponse"),
				Field: []*descriptorpb.FieldDescriptorProto{
					field(1, "message", text, ""), field(2, "sequence", number, ""),
					field(3, "workload", text, ""), field(4, "namespace", text, ""), field(5, "instance", text, ""), field(6, "version", text, ""),
					field(7, "port", number, ""),
					field(8, "method", text, ""), field(9, "host", text, ""), field(10, "path", text, ""),
					repeated(field(11, "headers", message, "."+echoPackage+".EchoResponse.HeadersEntry")),
					repeated(field(12, "calls", message, ".google.protobuf.Value")),
				},
				NestedType: []*descriptorpb.DescriptorProto{{
					Name:    proto.String("HeadersEntry"),
					Field:   []*descriptorpb.FieldDescriptorProto{field(1, "key", text, ""), field(2, "value", text, "")},
					Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
				}},
			},
		},
	}
}

func (m *messages) newRequest() *dynamicpb.Message  { return dynamicpb.NewMessage(m.request) }
func (m *messages) newResponse() *dynamicpb.Message { return dynamicpb.NewMessage(m.response) }

// fieldOf is a field of m by its name in echo.proto.
func fieldOf(m protoreflect.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

// get is the value of m's field.
func get(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(fieldOf(m, name))
}

// appendJSON appends an EchoResponse in the form of an HTTP stand-in's answer.
func (m *messages) appendJSON(b []byte, answer protoreflect.Message) []byte {
	b = append(b, '{')
	for _, name := range []protoreflect.Name{"workload", "namespace", "instance", "version", "port", "method", "host", "path"} {
		b = appendString(b, string(name))
		b = append(b, ':')
		if name == "port" {
			b = strconv.AppendInt(b, get(answer, name).Int(), 10)
		} else {
			b = appendString(b, get(answer, name).String())
		}
		b = append(b, ',')
	}
	b = append(b, `"headers":{`...)
	headers := get(answer, "headers").Map()
	var names []string
	headers.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		names = append(names, k.String())
		return true
	})
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = appendString(b, headers.Get(protoreflect.ValueOfString(name).MapKey()).String())
	}
	b = append(b, `},"calls":[`...)
	calls := get(answer, "calls").List()
	for i := range calls.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, calls.Get(i).Message().Interface())
	}
	return append(b, "]}"...)
}

// appendValue appends a google.protobuf.Value as JSON.
func appendValue(b []byte, v proto.Message) []byte {
	text, err := protojson.Marshal(v)
	if err != nil { // the Value is none: it came from a server that is no stand-in
		return append(b, "null"...)
	}
	var compact bytes.Buffer // protojson strews blanks
	if err := json.Compact(&compact, text); err != nil {
		return append(b, "null"...)
	}
	return append(b, compact.Bytes()...)
}
