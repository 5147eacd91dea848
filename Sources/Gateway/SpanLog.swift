// One worker's spans: written where their requests have ended, in OTLP's JSON, gathered for a turn of the loop and handed
// to whoever sends them.
//
// The JSON is made here and not there: it is what a line of the access log costs, only for what is sampled, and needs no
// second form of a span.

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import Tracing

final class SpanLog: EndOfTurnHandler {
    private let exporter: SpanExporter
    private let loop: Loop
    private var spans = ByteBuffer()
    private var count = 0

    /// `nil` where spans go nowhere.
    init?(of worker: Worker) {
        guard let exporter = worker.node.spanExporter else { return nil }
        self.exporter = exporter
        loop = worker.loop
    }

    /// Writes the spans of an exchange that has ended: what was asked of this node, and what it has asked a backend.
    func write(_ client: ClientConnection, _ marks: Marks) {
        guard let trace = marks.trace, trace.isSampled else { return }
        if count == 0 { loop.atEndOfTurn(self) }
        var out = spans.take()
        // Wall-clock time, reckoned back from now.
        let (now, wall) = (SystemClock.monotonic(), SystemClock.wallMicroseconds())
        func time(_ moment: MonotonicTime) -> Int64 { (wall - (now - moment).microseconds) * 1_000 }
        let span = OpenSpan(trace: trace, start: time(client.startedAt), end: wall * 1_000)
        writeServer(client, marks, span, &out)
        count += 1
        if client.usedBackend {
            let asked = OpenSpan(trace: trace, start: max(time(client.sentAt), span.start), end: span.end)
            writeClient(client, marks, asked, &out)
            count += 1
        }
        swap(&out, &spans)
    }

    func turnEnded() {
        guard count > 0 else { return }
        exporter.add(spans.array, count: count)
        spans.clear()
        count = 0
    }

    // MARK: Spans

    private struct OpenSpan {
        var trace: TraceMark
        var start: Int64
        var end: Int64
    }

    private enum Kind: Int {
        case server = 2
        case client = 3
    }

    /// Begins a span; its name and its attributes follow.
    private func open(_ span: OpenSpan, _ kind: Kind, _ out: inout ByteBuffer) {
        out.append(out.isEmpty ? "{\"traceId\":\"" : ",{\"traceId\":\"")
        out.append(span.trace.id)
        out.append("\",\"spanId\":\"")
        let parent: UInt64
        switch kind {
        case .server:
            out.append(narrow: span.trace.span)
            parent = span.trace.parent
        case .client:
            out.append(narrow: span.trace.backendSpan)
            parent = span.trace.span
        }
        if parent != 0 {
            out.append("\",\"parentSpanId\":\"")
            out.append(narrow: parent)
        }
        // Sampled; whether the parent is of another process is known, and so for the first of ours that has one.
        out.append("\",\"flags\":")
        out.append(decimal: kind == .server && parent != 0 ? 0x301 : 0x101)
        out.append(",\"kind\":")
        out.append(decimal: kind.rawValue)
        out.append(",\"startTimeUnixNano\":\"")
        out.append(decimal: Int(span.start))
        out.append("\",\"endTimeUnixNano\":\"")
        out.append(decimal: Int(span.end))
        out.append("\",\"name\":\"")
    }

    private func writeServer(_ client: ClientConnection, _ marks: Marks, _ span: OpenSpan, _ out: inout ByteBuffer) {
        open(span, .server, &out)
        appendTitle(client.method, &out)
        if let service = client.service {
            out.append(" ")
            out.append(service.settings.path)
        }
        out.append("\",\"attributes\":[")
        writeMethod(client, marks, &out)
        if marks.hasNoted(marks.marking.pathPlace) {
            text(",{\"key\":\"url.path\"", &out) { marks.appendNoted(marks.marking.pathPlace, to: &$0) }
        }
        text(",{\"key\":\"url.scheme\"", &out) { $0.append(client.clientScheme == .https ? "https" : "http") }
        if let service = client.service {
            text(",{\"key\":\"http.route\"", &out) { $0.append(service.settings.path) }
            text(",{\"key\":\"sluice.service\"", &out) { $0.append(service.nameBytes) }
        }
        if marks.hasNoted(marks.marking.authorityPlace) {
            text(",{\"key\":\"server.address\"", &out) { marks.appendNotedHost(marks.marking.authorityPlace, to: &$0) }
        }
        if let port = marks.notedPort(marks.marking.authorityPlace) { number(",{\"key\":\"server.port\"", port, &out) }
        text(",{\"key\":\"client.address\"", &out) { $0.append(client.client) }
        text(",{\"key\":\"network.peer.address\"", &out) { $0.append(client.peer) }
        text(",{\"key\":\"network.protocol.version\"", &out) { $0.append(client.version == .http11 ? "1.1" : "1.0") }
        if marks.hasNoted(marks.marking.userAgentPlace) {
            text(",{\"key\":\"user_agent.original\"", &out) { marks.appendNoted(marks.marking.userAgentPlace, to: &$0) }
        }
        if marks.hasID { text(",{\"key\":\"sluice.request_id\"", &out) { marks.appendID(to: &$0) } }
        text(",{\"key\":\"sluice.outcome\"", &out) { $0.append(client.outcome.name) }
        writeStatus(client, errorsFrom: 500, &out)
    }

    private func writeClient(_ client: ClientConnection, _ marks: Marks, _ span: OpenSpan, _ out: inout ByteBuffer) {
        guard let service = client.service else { return }
        let backend = service.backends[client.backendIndex]
        open(span, .client, &out)
        appendTitle(client.method, &out)
        out.append("\",\"attributes\":[")
        writeMethod(client, marks, &out)
        text(",{\"key\":\"server.address\"", &out) { $0.append(backend.host) }
        number(",{\"key\":\"server.port\"", Int(backend.port), &out)
        text(",{\"key\":\"network.protocol.version\"", &out) { $0.append("1.1") }
        text(",{\"key\":\"sluice.service\"", &out) { $0.append(service.nameBytes) }
        if client.resent > 0 { number(",{\"key\":\"http.request.resend_count\"", client.resent, &out) }
        writeStatus(client, errorsFrom: 400, &out)
    }

    private func writeMethod(_ client: ClientConnection, _ marks: Marks, _ out: inout ByteBuffer) {
        text("{\"key\":\"http.request.method\"", &out) { $0.append(Self.name(client.method)) }
        guard marks.hasNoted(marks.marking.methodPlace) else { return }
        text(",{\"key\":\"http.request.method_original\"", &out) {
            marks.appendNoted(marks.marking.methodPlace, to: &$0)
        }
    }

    /// What became of it, and the end of the span. Of a client's own mistakes a server is not to blame, and whoever asks is.
    private func writeStatus(_ client: ClientConnection, errorsFrom firstError: Int, _ out: inout ByteBuffer) {
        let outcome = client.outcome
        let answered = client.responseStarted || firstError == 500
        // 499 is nobody's answer.
        if answered, client.status != 499 { number(",{\"key\":\"http.response.status_code\"", client.status, &out) }
        let isBroken = outcome == .broken || outcome == .cutOff || outcome == .aborted || !answered
        let isError = isBroken || client.status >= firstError
        if isBroken {
            text(",{\"key\":\"error.type\"", &out) { $0.append(outcome.name) }
        } else if isError {
            text(",{\"key\":\"error.type\"", &out) { $0.append(decimal: client.status) }
        }
        // A client that leaves is no fault of this side.
        out.append(isError && outcome != .aborted ? "],\"status\":{\"code\":2}}" : "]}")
    }

    private func text(_ opening: StaticString, _ out: inout ByteBuffer, _ body: (inout ByteBuffer) -> Void) {
        out.append(opening)
        out.append(",\"value\":{\"stringValue\":\"")
        body(&out)
        out.append("\"}}")
    }

    private func number(_ opening: StaticString, _ value: Int, _ out: inout ByteBuffer) {
        out.append(opening)
        out.append(",\"value\":{\"intValue\":\"")
        out.append(decimal: value)
        out.append("\"}}")
    }

    private func appendTitle(_ method: Method, _ out: inout ByteBuffer) {
        out.append(method == .other ? "HTTP" : Self.name(method))
    }

    /// Semantic conventions: what is no known method must not make a series of its own.
    private static func name(_ method: Method) -> StaticString {
        switch method {
        case .get: "GET"
        case .head: "HEAD"
        case .post: "POST"
        case .put: "PUT"
        case .delete: "DELETE"
        case .patch: "PATCH"
        case .options: "OPTIONS"
        case .trace: "TRACE"
        case .connect: "CONNECT"
        case .other: "_OTHER"
        }
    }
}
