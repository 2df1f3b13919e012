// gotypes prints what only upstream's Go types say of each field of the API: its type, whether it is a pointer, when it
// is left out, and through which embedded structs it is reached. tools/generate_tables.py reads it:
//
//	cd tools/gotypes && go run . > ../go_types.json
//
// A line is a type: {field: [Go type ("*": a pointer), how it is left out ("omitempty", "omitzero" or ""), embedded structs...]},
// its fields in the order in which encoding/json writes them: that of their declaration.
package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// row is a type's fields as JSON members, in order.
type row []string

var types = map[string]*row{}

// name is "core.v1.Pod" for k8s.io/api/core/v1.Pod, and "meta.v1.Time" for a type of apimachinery.
func name(t reflect.Type) string {
	parts := strings.Split(t.PkgPath(), "/")
	return strings.Join(parts[max(0, len(parts)-2):], ".") + "." + t.Name()
}

func visit(t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !strings.HasPrefix(t.PkgPath(), "k8s.io/") || types[name(t)] != nil {
		return
	}
	fields := &row{}
	types[name(t)] = fields
	gather(fields, t, nil)
}

func gather(fields *row, t reflect.Type, via []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			gather(fields, f.Type, append(append([]string{}, via...), f.Name))
			continue
		}
		if tag == "" || tag == "-" || !f.IsExported() {
			continue
		}
		told, err := json.Marshal(append([]string{f.Type.String(), strings.ReplaceAll(options, ",", " ")}, via...))
		if err != nil {
			panic(err)
		}
		*fields = append(*fields, fmt.Sprintf("%q:%s", tag, told))
		visit(f.Type)
	}
}

func main() {
	for kind, t := range scheme.Scheme.AllKnownTypes() {
		if kind.Version != runtime.APIVersionInternal && !strings.HasSuffix(kind.Kind, "List") {
			visit(t)
		}
	}
	for _, each := range []any{apiextensions.CustomResourceDefinition{}, apiregistration.APIService{}, meta.DeleteOptions{}} {
		visit(reflect.TypeOf(each))
	}
	names := []string{}
	for each := range types {
		names = append(names, each)
	}
	sort.Strings(names)
	lines := []string{}
	for _, each := range names {
		lines = append(lines, fmt.Sprintf("%q:{%s}", each, strings.Join(*types[each], ",")))
	}
	fmt.Println("{\n" + strings.Join(lines, ",\n") + "\n}")
}
