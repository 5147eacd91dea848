// A small HTTP server for answers that are made at once: the admin listener and the demo backend. Bodies of requests are
// read and dropped, but where one is wanted. An answer may also be a stream that goes on until either side ends it.

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
    /// The value of Last-Event-ID: what a listener that comes back has seen.
    package var lastEventID = ""
    /// Where one is wanted, up to `JSONServer.bodyBytesMax`; more is cut off.
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
    /// Who makes the answer when there is something to say: it is called at once, and calls back on the loop.
    var later: ((@escaping (SmallAnswer) -> Void) -> Void)?

    /// The answer that `make` gives later.
    package static func later(_ make: @escaping (@escaping (SmallAnswer) -> Void) -> Void) -> SmallAnswer {
        var answer = SmallAnswer(body: [])
        answer.later = make
        return answer
    }

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

/// What is to be done about a request whose head is known.
package enum Admission {
    /// It is answered so, whatever its body may be.
    case refused(SmallAnswer)
    case withoutBody
    case withBody
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
            // Its owner ends it: nothing is read while there is something to send, so that no other event would.
            stream.deadline = stream.loop.now
            self.stream = nil
            return false
        }
        return true
    }
}

/// How long clients of such a server may take.
struct SmallPatience {
    /// From the connection, or from the first byte of a later head, to the head's end: nobody who asks by hand is slower.
    var head = TimeSpan.seconds(10)
    /// From the end of the head to the end of the body: the largest configuration at 35 KiB/s.
    var body = TimeSpan.seconds(30)
    /// Between two requests, and to take an answer: monitors ask every 15 to 60 seconds.
    var idle = TimeSpan.seconds(75)
}

/// What the connections of a server share.
private final class JSONDesk {
    let admit: (SmallRequest) -> Admission
    let answer: (SmallRequest) -> SmallAnswer
    var patience = SmallPatience()
    /// In no order; each knows its place.
    var connections: [JSONConnection] = []
    var open: Int { connections.count }
    /// Bodies that are kept until they are whole.
    var bodies = 0

    init(admit: @escaping (SmallRequest) -> Admission, answer: @escaping (SmallRequest) -> SmallAnswer) {
        self.admit = admit
        self.answer = answer
    }

    func add(_ connection: JSONConnection) {
        connection.place = connections.count
        connections.append(connection)
    }

    func remove(_ connection: JSONConnection) {
        let (place, last) = (connection.place, connections.count - 1)
        guard place <= last, connections[place] === connection else { return }
        connections.swapAt(place, last)
        connections[place].place = place
        connections.removeLast()
    }

    /// Closes the connection that has been quiet for the longest time, and is none whose answer goes on or is still to come; `false`
    /// where there is none.
    func shed() -> Bool {
        let quiet = connections.lazy.filter { !$0.streaming && !$0.awaiting }
        guard let longest = quiet.min(by: { $0.quietSince < $1.quietSince }) else { return false }
        longest.close()
        return true
    }
}

package final class JSONServer: ListenerHandler {
    private let loop: Loop
    private let desk: JSONDesk
    private let connectionsMax: Int
    private let shed: () -> Void
    private var listener: Listener?

    /// Connections.
    var open: Int { desk.open }
    /// Of connections that begin from here on.
    var patience: SmallPatience {
        get { desk.patience }
        set { desk.patience = newValue }
    }

    /// As much as a configuration may hold.
    package static let bodyBytesMax = 1 << 20
    /// Clients of a demo backend: as many as a load test opens.
    private static let connectionsMaxOfDemo = 1024
    /// Operators, monitors and dashboards: more at once is a mistake or an attack. Several times as many as are accepted
    /// in one turn, so that each has been heard before it is the one that has been quiet for the longest time.
    package static let connectionsMaxOfOperators = 256
    /// So many at once where descriptors have run out.
    private static let shedAtOnce = 16

    /// Operators who push a configuration in the same moment; together their bodies take 8 MiB.
    static let bodiesMax = 8

    /// - Parameters:
    ///   - connectionsMax: beyond it the one that has been quiet for the longest time makes room for a new one.
    ///   - shed: called with each.
    ///   - admit: asked when the head of a request is there, before anything is done about its body.
    package init(
        _ socket: ListeningSocket, loop: Loop, connectionsMax: Int? = nil, shed: @escaping () -> Void = {},
        answer: @escaping (SmallRequest) -> SmallAnswer,
        admit: @escaping (SmallRequest) -> Admission = { _ in .withoutBody }
    ) throws(SystemError) {
        self.loop = loop
        self.connectionsMax = connectionsMax ?? Self.connectionsMaxOfDemo
        self.shed = shed
        desk = JSONDesk(admit: admit, answer: answer)
        listener = try loop.listen(on: socket, handler: self)
    }

    /// Takes no more connections; those that are open end when they have been idle.
    package func close() {
        listener?.drain()
        listener = nil
    }

    /// Accepts no more: another process does. Connections that are open stay; who waits is that one's, which answers for
    /// the node.
    package func leave() {
        listener?.leave(takingWaiting: false)
        listener = nil
    }

    package func takePlace(_ listener: Listener, certain: Bool) -> Bool {
        desk.open < connectionsMax || certain && makeRoom()
    }

    private func makeRoom() -> Bool {
        guard desk.shed() else { return false }
        shed()
        return true
    }

    package func accepted(_ connection: consuming Accepted, by listener: Listener) {
        Socket.setNoDelay(connection.descriptor)
        let client = JSONConnection(desk, at: loop.now)
        guard let stream = try? loop.adopt(connection.take(), handler: client) else { return }
        client.begin(stream)
    }

    /// Whoever is quiet holds a descriptor that is needed.
    package func acceptPaused(_ listener: Listener, _ error: SystemError) {
        for _ in 0..<Self.shedAtOnce { guard makeRoom() else { return } }
    }
}

private final class JSONConnection: StreamHandler {
    private let desk: JSONDesk
    private var input = ByteBuffer()
    private var output = ByteBuffer()
    private var head = RequestHead()
    private var body = BodyDecoder(RequestFraming.none, limits: HeadLimits())
    /// The request whose body is being read.
    private var pending: SmallRequest?
    /// What it is answered in any case.
    private var refusal: SmallAnswer?
    private var keepsBody = false
    private var keepAlive = true
    private var withBody = true
    private var closing = false
    /// Whether the last answer is one that goes on.
    private(set) var streaming = false
    /// Whether the answer to the last request is still to be made.
    private(set) var awaiting = false
    private weak var stream: Stream?
    /// Its place at the desk.
    var place = 0
    /// When something came from it for the last time, or went to it.
    private(set) var quietSince: MonotonicTime
    /// Whether the first bytes of a head have come, or the time for the body runs.
    private var headBegan = false
    private var bodyBegan = false
    /// Bytes that came behind the last answer and were dropped; `nil` while there is none.
    private var dropped: Int?

    /// A reload looks up names, which may take a while.
    private static let answerTime = TimeSpan.seconds(120)
    /// How long a client that was refused may go on sending, to find the answer when it has done so.
    private static let lingerTime = TimeSpan.seconds(2)
    private static let readSize = 16 << 10

    init(_ desk: JSONDesk, at now: MonotonicTime) {
        self.desk = desk
        quietSince = now
    }

    func begin(_ stream: Stream) {
        self.stream = stream
        desk.add(self)
        stream.deadline = stream.loop.now + desk.patience.head
        headBegan = true
    }

    /// Makes room for somebody else.
    func close() {
        if let stream { close(stream) }
    }

    func streamConnected(_ stream: Stream) {}

    func streamReadable(_ stream: Stream) {
        // What is here already comes first.
        if take(stream) { return }
        while stream.isOpen, stream.mayHaveBytes, stream.pendingOutput == 0, !awaiting {
            switch stream.receive(into: &input, room: Self.readSize) {
            case .bytes where streaming: input.clear()
            case .bytes(let count) where dropped != nil: drop(count, stream)
            case .bytes:
                quietSince = stream.loop.now
                if pending == nil, !headBegan {
                    headBegan = true
                    stream.deadline = stream.loop.now + desk.patience.head
                }
                if take(stream) { return }
            case .wouldBlock: return
            case .endOfFile, .failed:
                close(stream)
                return
            }
        }
    }

    /// Answers the next request where it is there; whether anything was done. One a turn, and none before the client has
    /// taken the last answer: who sends many at once keeps neither the loop from others nor answers in memory.
    private func take(_ stream: Stream) -> Bool {
        guard !closing, !streaming, !awaiting, stream.pendingOutput == 0 else { return false }
        var made: SmallAnswer?
        var isCutShort = false
        while !closing, made == nil {
            let consumed = pending == nil ? takeHead(input) : takeBody(input)
            input.consume(consumed)
            guard let request = pending, !closing else { break }
            if let refusal {
                made = refusal
                isCutShort = !body.isComplete
                if isCutShort { keepAlive = false }
            } else if body.isComplete {
                let answer = desk.answer(request)
                guard let later = answer.later else {
                    made = answer
                    break
                }
                hold(until: later, stream)
                return true
            } else if consumed == 0 {
                break
            }
        }
        if made == nil, pending != nil, !bodyBegan {
            bodyBegan = true
            stream.deadline = stream.loop.now + desk.patience.body
        }
        return deliver(made, isCutShort: isCutShort, stream)
    }

    /// The next request is taken when this one is answered.
    private func hold(until later: (@escaping (SmallAnswer) -> Void) -> Void, _ stream: Stream) {
        awaiting = true
        stream.deadline = stream.loop.now + Self.answerTime
        later { [weak self, weak stream] answer in
            guard let self, let stream, awaiting, stream.isOpen else { return }
            awaiting = false
            _ = deliver(answer, isCutShort: false, stream)
        }
    }

    private func deliver(_ made: SmallAnswer?, isCutShort: Bool, _ stream: Stream) -> Bool {
        if let made { write(made) }
        guard !output.isEmpty || closing else { return false }
        quietSince = stream.loop.now
        send(output, stream)
        output.clear()
        if isCutShort { dropped = 0 }
        if let follow = made?.follow, streaming, !closing {
            stream.deadline = .distantFuture
            follow(AnswerStream(stream))
        }
        if closing {
            if stream.pendingOutput == 0 { end(stream) } else { stream.deadline = stream.loop.now + desk.patience.idle }
            return true
        }
        guard made != nil else { return false }
        if !streaming {
            bodyBegan = false
            headBegan = !input.isEmpty
            stream.deadline = stream.loop.now + (headBegan ? desk.patience.head : desk.patience.idle)
            if stream.pendingOutput == 0 { stream.wakeSoon() }
        }
        return true
    }

    /// The last answer is with the kernel. Closing while bytes of the client's are unread sends a reset that may destroy
    /// it on its way (RFC 9112 §9.6).
    private func end(_ stream: Stream) {
        guard dropped != nil else {
            close(stream)
            return
        }
        stream.shutdownWriting()
        input.clear()
        stream.deadline = stream.loop.now + Self.lingerTime
        stream.resumeReading()
    }

    private func drop(_ count: Int, _ stream: Stream) {
        input.clear()
        dropped = (dropped ?? 0) + count
        if dropped ?? 0 > JSONServer.bodyBytesMax { close(stream) }
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
            let query = head.path.upperBound..<max(head.path.upperBound, head.pathAndQuery.upperBound)
            let request = SmallRequest(
                method: text(bytes, head.methodBytes), path: text(bytes, head.path),
                query: String(text(bytes, query).drop { $0 == "?" }),
                authorization: text(bytes, value(of: .authorization)), host: text(bytes, value(of: .host)),
                origin: text(bytes, value(of: "origin", bytes)),
                fetchSite: text(bytes, value(of: "sec-fetch-site", bytes)),
                lastEventID: text(bytes, value(of: "last-event-id", bytes)))
            pending = request
            admit(request)
            return length
        }
    }

    private func admit(_ request: SmallRequest) {
        switch desk.admit(request) {
        case .refused(let answer): refusal = answer
        case .withoutBody: break
        case .withBody where body.isComplete: break
        case .withBody where desk.bodies >= JSONServer.bodiesMax:
            refusal = .problem(503, "Others send bodies just now: try again")
        case .withBody:
            keepsBody = true
            desk.bodies += 1
        }
        if refusal == nil, head.expectsContinue, !body.isComplete { output.append("HTTP/1.1 100 Continue\r\n\r\n") }
    }

    private func forgetRequest() {
        pending = nil
        refusal = nil
        if keepsBody { desk.bodies -= 1 }
        keepsBody = false
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
            case .data(let range) where !keepsBody: offset = range.upperBound
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
        forgetRequest()
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
        forgetRequest()
        desk.remove(self)
    }

    func streamDrained(_ stream: Stream) { if closing { end(stream) } else { stream.wakeSoon() } }
    func streamFailed(_ stream: Stream, _ error: SystemError) { close(stream) }
    func streamDeadlinePassed(_ stream: Stream) {
        guard awaiting else { return close(stream) }
        awaiting = false
        keepAlive = false
        let late = SmallAnswer.problem(504, "Not done yet: GET /api/config says what becomes of it")
        _ = deliver(late, isCutShort: false, stream)
    }
}
