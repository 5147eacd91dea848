// A small HTTP server for answers that are made at once: the admin listener and the demo backend. Bodies of requests are
// read and dropped. An answer may also be a stream that goes on until either side ends it.

package import EventLoop
import HTTP1
package import LinuxIO
import Primitives

/// One request as an answerer sees it.
package struct SmallRequest: Sendable {
    /// In upper case as sent: `GET`.
    package var method: String
    /// Without the query, escapes untouched.
    package var path: String
    /// What follows the `?`, escapes untouched; empty where there is none.
    package var query: String
    /// The value of the Authorization field; empty where there is none or more than one.
    package var authorization: String
    /// The values of Host, Origin and Sec-Fetch-Site, by which a browser is told from a program and one page from another.
    package var host = ""
    package var origin = ""
    package var fetchSite = ""
    /// Up to `JSONServer.bodyBytesMax`; more is cut off.
    package var body: [UInt8] = []
}

package struct SmallAnswer {
    package var status: Int
    package var contentType: String
    package var body: [UInt8]
    /// More fields: whole lines.
    package var fields = ""
    /// Who goes on writing behind `body`, which then has no length of its own.
    var follow: ((AnswerStream) -> Void)?

    package init(status: Int = 200, contentType: String = "application/json", body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    /// A problem of RFC 9457.
    package static func problem(_ status: Int, _ title: String) -> SmallAnswer {
        SmallAnswer(
            status: status, contentType: "application/problem+json",
            body: Array("{\"title\":\"\(title)\",\"status\":\(status)}\n".utf8))
    }
}

/// An answer that goes on. Who reads it more slowly than it is written is let go: nothing piles up here.
final class AnswerStream {
    private weak var stream: Stream?

    /// Some hundred events, on top of what the kernel holds.
    private static let pendingBytesMax = 64 << 10

    fileprivate init(_ stream: Stream) { self.stream = stream }

    var isOpen: Bool { stream?.isOpen ?? false }

    /// Returns whether the reader is still there.
    func write(_ text: String) -> Bool {
        guard let stream, stream.isOpen else { return false }
        if case .failed = stream.send(Array(text.utf8).span) { return false }
        guard stream.pendingOutput <= Self.pendingBytesMax else {
            stream.abortOnClose()
            stream.wakeSoon()
            self.stream = nil
            return false
        }
        return true
    }
}

package final class JSONServer: ListenerHandler {
    private let loop: Loop
    private let answer: (SmallRequest) -> SmallAnswer
    private var open = 0
    private var listener: Listener?

    /// As much as a configuration may hold.
    package static let bodyBytesMax = 1 << 20
    /// Operators, monitors and a few demo clients; more at once is a mistake or an attack.
    private static let connectionsMax = 1024

    package init(_ socket: ListeningSocket, loop: Loop, answer: @escaping (SmallRequest) -> SmallAnswer)
        throws(SystemError)
    {
        self.loop = loop
        self.answer = answer
        listener = try loop.listen(on: socket, handler: self)
    }

    /// Takes no more connections; those that are open end when they have been idle.
    package func close() {
        listener?.drain()
        listener = nil
    }

    /// Accepts no more: another process holds the socket too and does. Connections that are open stay.
    package func leave() {
        listener?.close()
        listener = nil
    }

    package func takePlace(_ listener: Listener, certain: Bool) -> Bool { open < Self.connectionsMax }

    package func accepted(_ connection: consuming Accepted, by listener: Listener) {
        Socket.setNoDelay(connection.descriptor)
        let handler = JSONConnection(answer) { [weak self] in self?.open -= 1 }
        guard let stream = try? loop.adopt(connection.take(), handler: handler) else { return }
        open += 1
        stream.deadline = loop.now + JSONConnection.idleTime
    }

    package func acceptPaused(_ listener: Listener, _ error: SystemError) {}
}

private final class JSONConnection: StreamHandler {
    private let answer: (SmallRequest) -> SmallAnswer
    private let closed: () -> Void
    private var input = ByteBuffer()
    private var output = ByteBuffer()
    private var head = RequestHead()
    private var body = BodyDecoder(RequestFraming.none, limits: HeadLimits())
    /// The request whose body is being read.
    private var pending: SmallRequest?
    private var keepAlive = true
    private var withBody = true
    private var closing = false
    /// Whether the last answer is one that goes on.
    private var streaming = false

    static let idleTime = TimeSpan.seconds(60)
    private static let readSize = 16 << 10

    init(_ answer: @escaping (SmallRequest) -> SmallAnswer, closed: @escaping () -> Void) {
        self.answer = answer
        self.closed = closed
    }

    func streamConnected(_ stream: Stream) {}

    func streamReadable(_ stream: Stream) {
        while stream.isOpen, stream.mayHaveBytes, stream.pendingOutput == 0 {
            switch stream.receive(into: &input, room: Self.readSize) {
            case .bytes where streaming: input.clear()
            case .bytes:
                stream.deadline = stream.loop.now + Self.idleTime
                take(stream)
            case .wouldBlock: return
            case .endOfFile, .failed:
                close(stream)
                return
            }
        }
    }

    /// Takes requests as long as whole ones are there.
    private func take(_ stream: Stream) {
        var follow: ((AnswerStream) -> Void)?
        while !closing, !streaming {
            let consumed = pending == nil ? takeHead(input) : takeBody(input)
            input.consume(consumed)
            if consumed == 0, pending == nil || !body.isComplete { break }
            if let pending, body.isComplete {
                let made = answer(pending)
                write(made)
                follow = made.follow
            }
        }
        send(output, stream)
        output.clear()
        if let follow, streaming, !closing {
            stream.deadline = .distantFuture
            follow(AnswerStream(stream))
        }
        if closing, stream.pendingOutput == 0 { close(stream) }
    }

    private func takeHead(_ buffer: borrowing ByteBuffer) -> Int {
        let bytes = buffer.bytes
        guard !bytes.isEmpty else { return 0 }
        switch head.parse(bytes, limits: HeadLimits()) {
        case .needMore: return 0
        case .malformed(let violation):
            output.appendRefusal(violation.rule)
            closing = true
            return 0
        case .complete(let length):
            keepAlive = head.keepAlive
            withBody = head.method != .head
            body = BodyDecoder(head.framing, limits: HeadLimits())
            if head.expectsContinue, !body.isComplete { output.append("HTTP/1.1 100 Continue\r\n\r\n") }
            let query = head.path.upperBound..<max(head.path.upperBound, head.pathAndQuery.upperBound)
            pending = SmallRequest(
                method: text(bytes, head.methodBytes), path: text(bytes, head.path),
                query: String(text(bytes, query).drop { $0 == "?" }),
                authorization: text(bytes, value(of: .authorization)), host: text(bytes, value(of: .host)),
                origin: text(bytes, value(of: "origin", bytes)),
                fetchSite: text(bytes, value(of: "sec-fetch-site", bytes)))
            return length
        }
    }

    private func value(of name: FieldName) -> Range<Int> {
        var found: Range<Int>?
        for index in 0..<head.fields.count where head.fields[index].id == name {
            if found != nil { return 0..<0 }
            found = head.fields[index].value
        }
        return found ?? 0..<0
    }

    /// The same for a name that the gateway does not tell from others, in lower case.
    private func value(of name: String, _ bytes: Span<UInt8>) -> Range<Int> {
        var found: Range<Int>?
        for index in 0..<head.fields.count where head.fields[index].id == .other {
            guard text(bytes, head.fields[index].name).lowercased() == name else { continue }
            if found != nil { return 0..<0 }
            found = head.fields[index].value
        }
        return found ?? 0..<0
    }

    private func text(_ bytes: Span<UInt8>, _ range: Range<Int>) -> String {
        var copy: [UInt8] = []
        copy.reserveCapacity(range.count)
        for i in range { copy.append(bytes[i]) }
        return String(decoding: copy, as: UTF8.self)
    }

    private func takeBody(_ buffer: borrowing ByteBuffer) -> Int {
        let bytes = buffer.bytes
        var offset = 0
        while offset < bytes.count, !body.isComplete {
            switch body.next(bytes, at: offset) {
            case .data(let range):
                let room = JSONServer.bodyBytesMax - (pending?.body.count ?? 0)
                for i in range.prefix(max(0, room)) { pending?.body.append(bytes[i]) }
                offset = range.upperBound
            case .needMore(let consumed): return consumed
            case .end(let consumed): return consumed
            case .malformed:
                closing = true
                return bytes.count
            }
        }
        return offset
    }

    private func write(_ answer: SmallAnswer) {
        pending = nil
        var fields = ByteBuffer()
        fields.append("Content-Type: \(answer.contentType)\r\nCache-Control: no-store\r\n")
        // A browser shows what was meant to be shown, and in nobody else's frame.
        fields.append("X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n")
        fields.append(answer.fields)
        if answer.follow != nil, withBody {
            // Until the connection ends: RFC 9112 §6.3, item 8.
            streaming = true
            output.append("HTTP/1.1 200 OK\r\nConnection: close\r\n")
            output.append(fields.bytes)
            output.append("\r\n")
            output.append(answer.body)
            return
        }
        var options: ResponseOptions = keepAlive ? .keepAlive : .close
        if !withBody { options.insert(.head) }
        append(answer, fields, options)
        if !keepAlive { closing = true }
    }

    private func append(_ answer: SmallAnswer, _ fields: borrowing ByteBuffer, _ options: ResponseOptions) {
        output.appendResponse(
            status: answer.status, reason: reasonPhrase(answer.status), fields: fields.bytes, body: answer.body.span,
            options: options)
    }

    private func send(_ buffer: borrowing ByteBuffer, _ stream: Stream) {
        if case .failed = stream.send(buffer.bytes) { closing = true }
    }

    private func close(_ stream: Stream) {
        guard stream.state != .closed else { return }
        stream.close()
        closed()
    }

    func streamDrained(_ stream: Stream) { if closing { close(stream) } else { stream.resumeReading() } }
    func streamFailed(_ stream: Stream, _ error: SystemError) { close(stream) }
    func streamDeadlinePassed(_ stream: Stream) { close(stream) }
}
