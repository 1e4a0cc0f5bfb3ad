# Writes a trace and reads it back, by id and by TraceQL. Needs sh, sleep and curl.
# OTLP_HTTP or OTLP_GRPC is where spans go, QUERY where questions go, TENANT whose they are, SECONDS_MAX how long to ask.
set -eu

IFS=- read -r a b c d e < /proc/sys/kernel/random/uuid
# Not with a leading zero, which answers may leave out.
trace=1${a#?}$b$c$d$e
span=$a$b$c
while read -r key value; do
  if [ "$key" = btime ]; then boot=$value; fi
done < /proc/stat
read -r up _ < /proc/uptime
begin=$((boot + ${up%.*}))

bytes() { # hexadecimal digits as bytes
  rest=$1
  while [ -n "$rest" ]; do
    byte=${rest%"${rest#??}"}
    rest=${rest#??}
    printf "\\$(printf %03o "0x$byte")"
  done
}

nanos() { # seconds as nanoseconds in eight bytes, lowest first, hexadecimal
  left=$(($1 * 1000000000)); digits=
  for _ in 1 2 3 4 5 6 7 8; do
    digits=$digits$(printf %02x $((left & 255)))
    left=$((left >> 8))
  done
  printf %s "$digits"
}

echo "writing trace $trace"
if [ -n "${OTLP_HTTP:-}" ]; then
  resource='{"attributes":[{"key":"service.name","value":{"stringValue":"helm-test"}}]}'
  spans='[{"traceId":"'$trace'","spanId":"'$span'","name":"helm-test","kind":1,"startTimeUnixNano":"'$begin'000000000","endTimeUnixNano":"'$begin'500000000"}]'
  curl --silent --show-error --fail-with-body --max-time 10 --retry 10 --retry-delay 2 --retry-all-errors \
    --header 'Content-Type: application/json' --header "X-Scope-OrgID: $TENANT" \
    --data '{"resourceSpans":[{"resource":'"$resource"',"scopeSpans":[{"spans":'"$spans"'}]}]}' "$OTLP_HTTP/v1/traces"
else
  # The same as protobuf in a gRPC frame: 96 bytes after the prefix of five.
  name=68656c6d2d74657374
  message=0a5e0a1d0a1b0a0c736572766963652e6e616d65120b0a09${name}123d123b0a10${trace}1208${span}2a09${name}300139$(nanos "$begin")41$(nanos $((begin + 1)))
  answer=$(bytes "0000000060$message" | curl --silent --show-error --max-time 10 --http2-prior-knowledge \
    --header 'Content-Type: application/grpc' --header 'TE: trailers' --header "X-Scope-OrgID: $TENANT" \
    --data-binary @- --output /dev/null --dump-header - "$OTLP_GRPC/opentelemetry.proto.collector.trace.v1.TraceService/Export" | while read -r line; do
      case $line in grpc-status:*) printf %s "$line" ;; esac
    done)
  case $answer in
    *grpc-status:\ 0*) ;;
    *) echo "gRPC answered ${answer:-without a status}"; exit 1 ;;
  esac
fi
echo

ask() { # what is expected in the answer, then what curl needs
  expected=$1; shift
  left=$SECONDS_MAX
  while [ "$left" -gt 0 ]; do
    answer=$(curl --silent --show-error --max-time 10 --header "X-Scope-OrgID: $TENANT" "$@" || true)
    case $answer in
      *"$expected"*) echo "found $expected in $*"; return ;;
    esac
    left=$((left - 1))
    sleep 1
  done
  echo "not found in $*: the last answer was $answer"
  exit 1
}

ask '"helm-test"' "$QUERY/api/traces/$trace"
ask "$trace" --get --data-urlencode 'q={ resource.service.name = "helm-test" }' --data-urlencode limit=100 --data-urlencode "start=$((begin - 60))" --data-urlencode "end=$((begin + 60))" "$QUERY/api/search"
echo "the trace was written and read back"
