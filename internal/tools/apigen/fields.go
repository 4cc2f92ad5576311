package main

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// field is what is written for a field of a message.
type field struct {
	number       protoreflect.FieldNumber
	name, goType string
	comment      string
	size, encode string
	decode       []branch
	enum         protoreflect.EnumDescriptor // nil if it is no enumeration
	enumName     string
}

// branch reads the field from a wire type.
type branch struct{ wireType, code string }

// fields returns the fields of a message by number, the order in which the
// official Marshal writes them.
func (g *generator) fields(m proto.Message) ([]field, error) {
	fds := m.ProtoReflect().Descriptor().Fields()
	byNumber := make([]field, 0, fds.Len())
	last := protoreflect.FieldNumber(0)
	for range fds.Len() {
		var next protoreflect.FieldDescriptor
		for i := range fds.Len() {
			if fd := fds.Get(i); fd.Number() > last && (next == nil || fd.Number() < next.Number()) {
				next = fd
			}
		}
		last = next.Number()
		f, err := g.field(m, next)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", next.Name(), err)
		}
		byNumber = append(byNumber, f)
	}
	return byNumber, nil
}

func (g *generator) field(m proto.Message, fd protoreflect.FieldDescriptor) (field, error) {
	goField, ok := structField(m, fd)
	if !ok {
		return field{}, fmt.Errorf("the official Go type has no such field")
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return field{}, fmt.Errorf("oneofs are not supported")
	}
	f := field{number: fd.Number(), name: goField.Name}
	if e := fd.Enum(); e != nil {
		f.enum = e
		t := goField.Type
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		f.enumName = t.Name()
	}
	var err error
	switch {
	case fd.IsMap():
		err = f.stringMap(fd)
	case fd.Kind() == protoreflect.MessageKind:
		err = g.nested(&f, fd)
	case fd.IsList():
		err = f.list(fd)
	case fd.HasPresence():
		if fd.Kind() != protoreflect.StringKind {
			return f, fmt.Errorf("optional %v is not supported", fd.Kind())
		}
		f.simple("*string", "OptionalString", "Bytes", "d.OptionalString()", "")
	default:
		err = f.scalar(fd)
	}
	return f, err
}

// structField returns the field of the official Go struct, found by the name in
// its tag.
func structField(m proto.Message, fd protoreflect.FieldDescriptor) (reflect.StructField, bool) {
	t := reflect.TypeOf(m).Elem()
	for i := range t.NumField() {
		for _, part := range strings.Split(t.Field(i).Tag.Get("protobuf"), ",") {
			if part == "name="+string(fd.Name()) {
				return t.Field(i), true
			}
		}
	}
	return reflect.StructField{}, false
}

// simple is a field that one method of Encoder and one of Decoder handle.
func (f *field) simple(goType, method, wireType, read, convert string) {
	f.goType = goType
	value := "m." + f.name
	if convert != "" {
		value = convert + "(" + value + ")"
	}
	f.size = fmt.Sprintf("n += wire.Size%s(%d, %s)", method, f.number, value)
	f.encode = fmt.Sprintf("e.%s(%d, %s)", method, f.number, value)
	f.decode = []branch{{wireType, fmt.Sprintf("m.%s = %s", f.name, read)}}
}

func (f *field) scalar(fd protoreflect.FieldDescriptor) error {
	switch fd.Kind() {
	case protoreflect.StringKind:
		f.simple("string", "String", "Bytes", "d.String()", "")
	case protoreflect.BytesKind:
		f.simple("[]byte", "Bytes", "Bytes", "d.Bytes()", "")
		if aliased[fd.FullName()] {
			f.simple("[]byte", "Bytes", "Bytes", "d.Alias()", "")
			f.comment = f.name + " shares memory with the input of Unmarshal."
		}
	case protoreflect.BoolKind:
		f.simple("bool", "Bool", "Varint", "d.Bool()", "")
	case protoreflect.DoubleKind:
		f.simple("float64", "Double", "Fixed64", "d.Double()", "")
	case protoreflect.Uint64Kind:
		f.simple("uint64", "Uint", "Varint", "d.Uint()", "")
	case protoreflect.Uint32Kind, protoreflect.Int32Kind, protoreflect.Int64Kind:
		f.simple(fd.Kind().String(), "Uint", "Varint", fd.Kind().String()+"(d.Uint())", "uint64")
	case protoreflect.EnumKind:
		f.simple(f.enumName, "Uint", "Varint", f.enumName+"(d.Uint())", "uint64")
	default:
		return fmt.Errorf("%v is not supported", fd.Kind())
	}
	return nil
}

func (f *field) list(fd protoreflect.FieldDescriptor) error {
	element := ""
	switch fd.Kind() {
	case protoreflect.StringKind:
		f.simple("[]string", "Strings", "Bytes", fmt.Sprintf("append(m.%s, d.String())", f.name), "")
		return nil
	case protoreflect.Uint64Kind:
		element = "uint64"
	case protoreflect.EnumKind:
		element = f.enumName
	}
	if element == "" || !fd.IsPacked() {
		return fmt.Errorf("repeated %v is not supported", fd.Kind())
	}
	f.goType = "[]" + element
	f.size = fmt.Sprintf("n += wire.SizePacked(%d, m.%s)", f.number, f.name)
	f.encode = fmt.Sprintf("wire.AppendPacked(e, %d, m.%s)", f.number, f.name)
	f.decode = []branch{
		{"Bytes", fmt.Sprintf("m.%s = wire.ReadPacked(d, m.%[1]s)", f.name)},
		{"Varint", fmt.Sprintf("m.%s = append(m.%[1]s, %s(d.Uint()))", f.name, element)},
	}
	return nil
}

func (f *field) stringMap(fd protoreflect.FieldDescriptor) error {
	if fd.MapKey().Kind() != protoreflect.StringKind || fd.MapValue().Kind() != protoreflect.StringKind {
		return fmt.Errorf("only maps of strings to strings are supported")
	}
	f.simple("map[string]string", "StringMap", "Bytes", fmt.Sprintf("d.StringMap(m.%s)", f.name), "")
	return nil
}

func (g *generator) nested(f *field, fd protoreflect.FieldDescriptor) error {
	full := fd.Message().FullName()
	if !g.pkg[full] {
		return fmt.Errorf("%s is not generated in this package", full)
	}
	name := renamed[full]
	if name == "" {
		name = string(fd.Message().Name())
	}
	size := fmt.Sprintf("n += wire.SizeMessage(%d, v.Size())", f.number)
	encode := fmt.Sprintf("e.Message(%d, v.Size())\nv.encode(e)", f.number)
	read := "outer := d.Enter()\nv.merge(d)\nd.Leave(outer)"
	if fd.IsList() {
		f.goType = "[]*" + name
		f.size = fmt.Sprintf("for _, v := range m.%s {\n%s\n}", f.name, size)
		f.encode = fmt.Sprintf("for _, v := range m.%s {\n%s\n}", f.name, encode)
		f.decode = []branch{{"Bytes", fmt.Sprintf("v := new(%s)\nm.%s = append(m.%[2]s, v)\n%s", name, f.name, read)}}
		return nil
	}
	f.goType = "*" + name
	f.size = fmt.Sprintf("if v := m.%s; v != nil {\n%s\n}", f.name, size)
	f.encode = fmt.Sprintf("if v := m.%s; v != nil {\n%s\n}", f.name, encode)
	f.decode = []branch{{"Bytes", fmt.Sprintf("if m.%s == nil {\nm.%[1]s = new(%s)\n}\nv := m.%[1]s\n%[3]s", f.name, name, read)}}
	return nil
}
