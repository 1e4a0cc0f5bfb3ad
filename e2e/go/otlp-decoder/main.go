// Decodes OTLP trace requests as the OpenTelemetry Collector does, and writes back what it understood.
//
// Each request on standard input is one byte for the format (p: protobuf, j: JSON), four for the length (big endian), and the body.
// Each answer on standard output is one byte (+: taken, -: refused), four for the length, and the content as protobuf or the error.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// bodyBytesMax is more than any test sends; a larger length means that the two sides are out of step.
const bodyBytesMax = 64 << 20

func main() {
	if err := run(bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in *bufio.Reader, out *bufio.Writer) error {
	var head [5]byte
	for {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request's head: %w", err)
		}
		length := binary.BigEndian.Uint32(head[1:])
		if length > bodyBytesMax {
			return fmt.Errorf("a request of %d bytes", length)
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(in, body); err != nil {
			return fmt.Errorf("reading a request of %d bytes: %w", length, err)
		}
		verdict, answer := byte('+'), []byte(nil)
		content, err := decoded(head[0], body)
		if err != nil {
			verdict, answer = '-', []byte(err.Error())
		} else {
			answer = content
		}
		head[0] = verdict
		binary.BigEndian.PutUint32(head[1:], uint32(len(answer)))
		out.Write(head[:])
		out.Write(answer)
		// A failed write stays with the writer until here.
		if err := out.Flush(); err != nil {
			return fmt.Errorf("writing an answer: %w", err)
		}
	}
}

func decoded(format byte, body []byte) ([]byte, error) {
	request := ptraceotlp.NewExportRequest()
	var err error
	switch format {
	case 'p':
		err = request.UnmarshalProto(body)
	case 'j':
		err = request.UnmarshalJSON(body)
	default:
		return nil, fmt.Errorf("no format %q", format)
	}
	if err != nil {
		return nil, err
	}
	return request.MarshalProto()
}
