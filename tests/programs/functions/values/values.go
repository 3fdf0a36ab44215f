// Says what its functions are given and give back, in the words in which remora is to say it.
package main

import (
	"errors"
	"fmt"
	"os"
)

type point struct {
	X, Y int
}

type order struct {
	ID    int
	Title string
	Next  *order
}

type level int8

func arg(function, name, format string, values ...any) {
	fmt.Printf("main.%s|remora.arg.%s|%s\n", function, name, fmt.Sprintf(format, values...))
}

func returns(function, format string, values ...any) {
	fmt.Printf("main.%s|remora.return|%s\n", function, fmt.Sprintf(format, values...))
}

//go:noinline
func integers(a int8, b uint16, c int32, d uint64, e bool, f rune, g level) int64 {
	arg("integers", "a", "%d", a)
	arg("integers", "b", "%d", b)
	arg("integers", "c", "%d", c)
	arg("integers", "d", "%d", d)
	arg("integers", "e", "%t", e)
	arg("integers", "f", "%d", f)
	arg("integers", "g", "%d", g)
	return int64(c) - 1
}

//go:noinline
func texts(text string, list []int32, names []string, raw []byte) string {
	arg("texts", "text", "%s", text)
	arg("texts", "list", "[%d, %d]", list[0], list[1])
	arg("texts", "names", "[%d elements]", len(names))
	arg("texts", "raw", "%s", raw)
	return text + "!"
}

//go:noinline
func orders(o *order, p point, q *point, none *order) (int, error) {
	arg("orders", "o", "&{ID: %d, Title: %q, Next: &{ID: %d, Title: %q, Next: null}}", o.ID, o.Title, o.Next.ID, o.Next.Title)
	arg("orders", "p", "{X: %d, Y: %d}", p.X, p.Y)
	arg("orders", "q", "&{X: %d, Y: %d}", q.X, q.Y)
	arg("orders", "none", "null")
	if o.ID > 3 {
		return o.ID, fmt.Errorf("order %d: %w", o.ID, os.ErrNotExist)
	}
	return -o.ID, nil
}

//go:noinline
func failing(e error, v any, n int) error {
	if e == nil {
		arg("failing", "e", "nil")
	} else {
		arg("failing", "e", "*errors.errorString(%q)", e.Error())
	}
	arg("failing", "v", "int")
	arg("failing", "n", "%d", n)
	if n > 3 {
		return errors.New("too many")
	}
	return nil
}

//go:noinline
func many(a, b, c, d, e, f, g, h, i, j, k int) (int, int) {
	arg("many", "a", "%d", a)
	arg("many", "b", "%d", b)
	arg("many", "c", "%d", c)
	arg("many", "d", "%d", d)
	arg("many", "e", "%d", e)
	arg("many", "f", "%d", f)
	arg("many", "g", "%d", g)
	arg("many", "h", "%d", h)
	arg("many", "i", "%d", i)
	arg("many", "j", "%d", j)
	arg("many", "k", "%d", k)
	return a + k, b
}

//go:noinline
func (p point) grown(by int) point {
	fmt.Printf("main.point.grown|remora.arg.p|{X: %d, Y: %d}\n", p.X, p.Y)
	fmt.Printf("main.point.grown|remora.arg.by|%d\n", by)
	return point{p.X + by, p.Y + by}
}

func main() {
	for n := len(os.Args); n < len(os.Args)+6; n += 3 {
		returns("integers", "%d", integers(-5, uint16(60000+n), int32(-n), 18000000000000000000, n == 1, 'ä', level(n)))
		returns("texts", "%s", texts(fmt.Sprint("text ", n), []int32{int32(n), -2}, []string{"a", "b"}, []byte("raw")))
		second := &order{n + 1, "second", nil}
		x, err := orders(&order{n, "first", second}, point{n, 2}, &point{3, n}, nil)
		if err == nil {
			returns("orders", "(%d, nil)", x)
		} else {
			returns("orders", "(%d, *fmt.wrapError(%q))", x, err.Error())
			fmt.Printf("main.orders|failed|*fmt.wrapError: %s\n", err)
		}
		if n == 1 {
			err = nil
		} else {
			err = errors.New("given")
		}
		err = failing(err, n, n)
		if err == nil {
			returns("failing", "nil")
		} else {
			returns("failing", "*errors.errorString(%q)", err.Error())
			fmt.Printf("main.failing|failed|*errors.errorString: %s\n", err)
		}
		a, b := many(n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
		returns("many", "(%d, %d)", a, b)
		p := point{n, -n}.grown(n)
		fmt.Printf("main.point.grown|remora.return|{X: %d, Y: %d}\n", p.X, p.Y)
	}
}
