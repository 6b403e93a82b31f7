package admin

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Redacted stands where a dump leaves a value out.
const Redacted = "[redacted]"

// Redact returns s without the values of header fields that carry credentials: routes may set them or ask for them.
// Where there are none it returns s itself; it never changes s. Keys and certificates are no part of a snapshot.
func Redact(s *model.Snapshot) *model.Snapshot {
	if s == nil || !redact(reflect.ValueOf(s), false) {
		return s
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("admin: a snapshot always encodes: " + err.Error())
	}
	own := &model.Snapshot{}
	if err := json.Unmarshal(b, own); err != nil {
		panic("admin: a snapshot always decodes: " + err.Error())
	}
	redact(reflect.ValueOf(own), true)
	return own
}

var (
	nameValue = reflect.TypeFor[model.NameValue]()
	keyMatch  = reflect.TypeFor[model.KeyMatch]()
)

// redact says whether there is something to leave out below v, and does so where change is set.
func redact(v reflect.Value, change bool) (found bool) {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && redact(v.Elem(), change)
	case reflect.Slice:
		for i := range v.Len() {
			found = redact(v.Index(i), change) || found
		}
	case reflect.Struct:
		if t := v.Type(); t == nameValue || t == keyMatch {
			value := v.FieldByName("Value")
			if !secret(v.FieldByName("Name").String()) || value.String() == "" {
				return false
			}
			if change {
				value.SetString(Redacted)
			}
			return true
		}
		for i := range v.NumField() {
			found = redact(v.Field(i), change) || found
		}
	}
	return found
}

// secret says whether fields of that name carry credentials: the standard ones, and what people call their own.
func secret(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	for _, part := range []string{"token", "secret", "password", "api-key", "apikey", "access-key", "credential", "session"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
