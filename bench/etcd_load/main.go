// etcd_load puts load on a server of etcd's API with its official client, and prints what it measured as JSON.
//
//	etcd_load -endpoint 127.0.0.1:2379 -op put -clients 64 -seconds 5
//
// put     puts of new keys
// range   linearizable gets of single keys
// txn     creates: a compare and a put
// watch   as many watches as clients, each of all keys, while eight writers put; what is counted are events
//
// Each client has a connection of its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	readKeys = 1000
	writers  = 8
)

type result struct {
	Op      string  `json:"op"`
	Clients int     `json:"clients"`
	Count   int64   `json:"count"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

type load struct {
	endpoint string
	run      string
	value    string
	deadline time.Time
}

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "address of the server")
	op := flag.String("op", "put", "put, range, txn or watch")
	clients := flag.Int("clients", 1, "clients, each with a connection")
	seconds := flag.Float64("seconds", 5, "how long to measure")
	size := flag.Int("value", 256, "bytes of a value")
	run := flag.String("run", "r", "prefix of the keys, so that runs do not meet")
	flag.Parse()
	l := &load{endpoint: *endpoint, run: *run, value: strings.Repeat("v", *size)}
	found := l.measure(*op, *clients, time.Duration(*seconds*float64(time.Second)))
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func (l *load) connect() *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.endpoint}, DialTimeout: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func (l *load) measure(op string, clients int, wanted time.Duration) result {
	connected := make([]*clientv3.Client, clients)
	for place := range connected {
		connected[place] = l.connect()
		defer connected[place].Close()
		l.must(connected[place].Get(context.Background(), "warm"))
	}
	if op == "watch" {
		return l.watch(connected, wanted)
	}
	if op == "range" {
		for number := 0; number < readKeys; number++ {
			l.must(connected[0].Put(context.Background(), l.key(0, number%readKeys), l.value))
		}
	}
	begun := time.Now()
	l.deadline = begun.Add(wanted)
	took := make([][]time.Duration, clients)
	l.together(clients, func(place int) { took[place] = l.repeat(connected[place], op, place) })
	return summary(op, clients, took, time.Since(begun))
}

func (l *load) key(place, number int) string {
	return fmt.Sprintf("%s/%03d/%09d", l.run, place, number)
}

func (l *load) must(_ any, err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (l *load) together(count int, work func(place int)) {
	var group sync.WaitGroup
	for place := 0; place < count; place++ {
		group.Add(1)
		go func() {
			defer group.Done()
			work(place)
		}()
	}
	group.Wait()
}

func (l *load) repeat(client *clientv3.Client, op string, place int) []time.Duration {
	ctx := context.Background()
	var took []time.Duration
	for number := 0; time.Now().Before(l.deadline); number++ {
		key := l.key(place, number)
		begun := time.Now()
		switch op {
		case "put":
			l.must(client.Put(ctx, key, l.value))
		case "range":
			l.must(client.Get(ctx, l.key(0, (place*31+number)%readKeys)))
		case "txn":
			absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
			l.must(client.Txn(ctx).If(absent).Then(clientv3.OpPut(key, l.value)).Commit())
		default:
			log.Fatalf("unknown operation %q", op)
		}
		took = append(took, time.Since(begun))
	}
	return took
}

// watch counts the events that all watches got, and how long after the beginning of their put.
func (l *load) watch(connected []*clientv3.Client, wanted time.Duration) result {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	prefix := l.run + "/"
	var seen atomic.Int64
	took := make([][]time.Duration, len(connected))
	var group sync.WaitGroup
	for place, client := range connected {
		channel := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-channel
		group.Add(1)
		go func() {
			defer group.Done()
			for answer := range channel {
				now := time.Now().UnixNano()
				for _, event := range answer.Events {
					sent, _ := strconv.ParseInt(string(event.Kv.Value[:20]), 10, 64)
					took[place] = append(took[place], time.Duration(now-sent))
				}
				seen.Add(int64(len(answer.Events)))
			}
		}()
	}
	writer := l.connect()
	defer writer.Close()
	begun := time.Now()
	l.deadline = begun.Add(wanted)
	var put atomic.Int64
	l.together(writers, func(place int) {
		for number := 0; time.Now().Before(l.deadline); number++ {
			value := fmt.Sprintf("%020d%s", time.Now().UnixNano(), l.value[min(20, len(l.value)):])
			l.must(writer.Put(context.Background(), l.key(place, number), value))
			put.Add(1)
		}
	})
	for seen.Load() < put.Load()*int64(len(connected)) {
		time.Sleep(time.Millisecond)
	}
	elapsed := time.Since(begun)
	stop()
	group.Wait()
	return summary("watch", len(connected), took, elapsed)
}

func summary(op string, clients int, took [][]time.Duration, elapsed time.Duration) result {
	var all []time.Duration
	for _, each := range took {
		all = append(all, each...)
	}
	if len(all) == 0 {
		log.Fatal("nothing was answered")
	}
	sort.Slice(all, func(one, other int) bool { return all[one] < all[other] })
	at := func(part float64) float64 { return float64(all[int(part*float64(len(all)-1))].Microseconds()) / 1000 }
	rate := float64(len(all)) / elapsed.Seconds()
	return result{op, clients, int64(len(all)), elapsed.Seconds(), rate, at(0.5), at(0.99)}
}
