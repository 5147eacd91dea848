// The side of the span exporter that has a thread: one batch after the other, each on a connection of its own.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives

final class SpanDesk: WakeHandler, StreamHandler {
    private enum Phase {
        /// Waits for spans.
        case idle
        case resolving
        case exchanging
        /// A batch is tried again later.
        case pausing
    }

    /// What an attempt has come to.
    private enum Outcome {
        case taken(rejected: Int)
        case later(String, after: TimeSpan?)
        case refused(String)
    }

    private let exporter: SpanExporter
    private let settings: Configuration.OTLP
    private let loop: Loop
    private let note: (String, [String: String]) -> Void
    private var timer: LoopTimer!
    private var phase = Phase.idle
    private var batch = SpanExporter.Batch()
    /// When the batch at hand is given up.
    private var batchEnd = MonotonicTime.distantFuture
    private var attemptEnd = MonotonicTime.distantFuture
    private var pause = SpanDesk.shortestPause
    private var random: SplitMix64
    private var addresses: [IPAddress] = []
    private var stream: Stream?
    private var input = ByteBuffer()
    private var head = ResponseHead()
    private var body: BodyDecoder?
    private var text: [UInt8] = []
    private var isStopping = false
    private var stopBy = MonotonicTime.distantFuture
    /// Whether the log was told that it does not work.
    private var isTroubled = false
    private var lostBefore = 0

    /// OTLP wants exponential pauses with jitter.
    private static let shortestPause = TimeSpan.milliseconds(500)
    private static let longestPause = TimeSpan.seconds(10)
    /// A collector that asks for longer is asked again after this.
    private static let retryAfterMax = TimeSpan.seconds(30)
    /// A batch that nobody takes for so long makes room for younger ones.
    private static let batchLife = TimeSpan.seconds(60)
    /// What is left at the end may take so long, so that a node that ends is not held up.
    private static let stopTime = TimeSpan.seconds(2)
    /// An answer says how many spans were rejected, and why: a line.
    private static let answerBytesMax = 64 << 10

    init(_ exporter: SpanExporter, loop: Loop, note: @escaping (String, [String: String]) -> Void) {
        self.exporter = exporter
        self.loop = loop
        self.note = note
        settings = exporter.settings
        random = SplitMix64(seed: exporter.seed)
        timer = LoopTimer(loop) { [weak self] in self?.due() }
        loop.addWakeHandler(self)
    }

    func start() { timer.schedule(after: settings.interval) }

    func close() {
        timer.cancel()
        stream?.close()
        // What is left now is lost.
        exporter.counts.drop(batch.count, .unreachable)
        while true {
            let rest = exporter.takeBatch()
            if rest.isEmpty { break }
            exporter.counts.drop(rest.count, .unreachable)
        }
    }

    // MARK: When

    func woken() {
        for message in exporter.mailbox.take() {
            switch message {
            case .due: if phase == .idle { due() }
            case .resolved(let answer): resolved(answer)
            case .stop:
                isStopping = true
                stopBy = loop.now + Self.stopTime
                if phase == .idle || phase == .pausing {
                    due()
                } else {
                    stream?.deadline = min(attemptEnd, stopBy)
                    timer.schedule(at: stopBy)
                }
            }
        }
    }

    /// Time for the next batch, or for the one at hand once more.
    private func due() {
        switch phase {
        case .resolving, .exchanging:
            // Nobody waits for it any longer.
            if isStopping { loop.stop() }
        case .idle:
            batch = exporter.takeBatch()
            guard !batch.isEmpty else {
                if isStopping { loop.stop() } else { timer.schedule(after: settings.interval) }
                return
            }
            batchEnd = loop.now + Self.batchLife
            attempt()
        case .pausing: attempt()
        }
    }

    private func attempt() {
        attemptEnd = min(loop.now + settings.timeout, stopBy)
        if isStopping { timer.schedule(at: stopBy) }
        phase = .resolving
        let mailbox = exporter.mailbox
        exporter.resolver.resolve(settings.endpoint.host.plain) { mailbox.post(.resolved($0)) }
    }

    private func ended(_ outcome: Outcome) {
        stream?.close()
        stream = nil
        input.clear()
        text = []
        body = nil
        phase = .idle
        switch outcome {
        case .taken(let rejected):
            exporter.counts.export(batch.count - rejected)
            exporter.counts.drop(rejected, .refused)
            batch = SpanExporter.Batch()
            pause = Self.shortestPause
            recovered()
            next(after: exporter.hasBatch || isStopping ? .zero : settings.interval)
        case .refused(let reason):
            exporter.counts.failed()
            // Before its spans are lost: they are part of what the log says is lost.
            troubled(reason)
            exporter.counts.drop(batch.count, .refused)
            batch = SpanExporter.Batch()
            next(after: isStopping ? .zero : settings.interval)
        case .later(let reason, let wanted):
            exporter.counts.failed()
            troubled(reason)
            if isStopping { return loop.stop() }
            let wait = wanted.map { min($0, Self.retryAfterMax) } ?? jittered()
            pause = min(pause + pause, Self.longestPause)
            if loop.now + wait >= batchEnd {
                exporter.counts.drop(batch.count, .unreachable)
                batch = SpanExporter.Batch()
            } else {
                phase = .pausing
            }
            timer.schedule(after: wait)
        }
    }

    private func next(after wait: TimeSpan) {
        if wait > .zero { timer.schedule(after: wait) } else { exporter.mailbox.post(.due) }
    }

    private func jittered() -> TimeSpan {
        pause + TimeSpan(nanoseconds: Int64.random(in: 0...pause.nanoseconds / 2, using: &random))
    }

    // MARK: The log

    private var lost: Int { SpanCounts.Loss.allCases.reduce(0) { $0 + exporter.counts.dropped($1) } }

    private func troubled(_ reason: String) {
        guard !isTroubled else { return }
        isTroubled = true
        lostBefore = lost
        note("spans cannot be exported", ["endpoint": settings.endpoint.url, "reason": reason])
    }

    private func recovered() {
        guard isTroubled else { return }
        isTroubled = false
        note("spans are exported again", ["endpoint": settings.endpoint.url, "lost": "\(lost - lostBefore)"])
    }

    // MARK: Asking

    private func resolved(_ answer: Resolver.Answer) {
        guard phase == .resolving else { return }
        phase = .exchanging
        switch answer {
        case .success(let found):
            addresses = found
            connect("no address")
        case .failure(let error): ended(.later(error.description, after: nil))
        }
    }

    private func connect(_ reason: String) {
        guard !addresses.isEmpty else { return ended(.later(reason, after: nil)) }
        let target = SocketAddress(ip: addresses.removeFirst(), port: settings.endpoint.port)
        do throws(SystemError) {
            let stream = try loop.connect(to: .tcp(target), handler: self)
            // Each address gets its share of the time.
            stream.deadline = loop.now + (attemptEnd - loop.now) / Int64(addresses.count + 1)
            self.stream = stream
        } catch {
            connect(error.reason)
        }
    }

    func streamConnected(_ stream: Stream) {
        stream.deadline = attemptEnd
        var request = ByteBuffer()
        let spans = batch.chunks.reduce(0) { $0 + $1.bytes.count + 1 }
        let length = exporter.opening.count + spans - 1 + SpanExporter.closing.count
        request.append("POST \(settings.endpoint.path) HTTP/1.1\r\nHost: \(settings.endpoint.authority)\r\n")
        request.append("Content-Type: application/json\r\nContent-Length: \(length)\r\nConnection: close\r\n")
        var fields = [("user-agent", "sluice/\(Build.version)")].filter { field in
            !settings.headers.contains { $0.name == field.0 }
        }
        fields += settings.headers.map { ($0.name, $0.value) }
        for (name, value) in fields { request.append("\(name): \(value)\r\n") }
        request.append("\r\n")
        request.append(exporter.opening)
        for (index, chunk) in batch.chunks.enumerated() {
            if index > 0 { request.append(",") }
            request.append(chunk.bytes)
        }
        request.append(SpanExporter.closing)
        if case .failed(let error) = stream.send(request.bytes) { ended(.later(error.reason, after: nil)) }
    }

    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes {
            var buffer = input.take()
            let outcome = stream.receive(into: &buffer, room: 4_096)
            var result: Outcome?
            switch outcome {
            case .bytes:
                let consumed = take(buffer, &result)
                buffer.consume(consumed)
            case .wouldBlock: break
            case .endOfFile:
                result = body?.endOfInput == .complete ? answered() : .later("closed before its answer", after: nil)
            case .failed(let error): result = .later(error.reason, after: nil)
            }
            swap(&buffer, &input)
            if let result { return ended(result) }
        }
    }

    /// Reads what has come; returns how much of it need not be kept.
    private func take(_ buffer: borrowing ByteBuffer, _ result: inout Outcome?) -> Int {
        let bytes = buffer.bytes
        var offset = 0
        while body == nil {
            switch head.parse(bytes.extracting(offset..<bytes.count), limits: HeadLimits()) {
            case .complete(let length):
                if head.status >= 200 {
                    body = BodyDecoder(head.framing(requestMethod: .post), limits: HeadLimits())
                    retryAfter = Self.seconds(head, bytes.extracting(offset..<bytes.count))
                }
                offset += length
            case .needMore:
                if bytes.count - offset > Self.answerBytesMax { result = .later("the answer is no HTTP", after: nil) }
                return offset
            case .malformed:
                result = .later("the answer is no HTTP", after: nil)
                return offset
            }
        }
        while true {
            if body?.isComplete ?? true {
                result = answered()
                return offset
            }
            switch body?.next(bytes, at: offset) {
            case .data(let range):
                // More than that nobody has to say.
                for i in range where text.count < Self.answerBytesMax { text.append(bytes[i]) }
                offset = range.upperBound
            case .end(let consumed):
                result = answered()
                return consumed
            case .needMore(let consumed): return consumed
            case .malformed, nil:
                result = .later("the answer is no HTTP", after: nil)
                return offset
            }
        }
    }

    private var retryAfter: TimeSpan?

    /// Retry-After in seconds; as a date it is not known.
    private static func seconds(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>) -> TimeSpan? {
        guard let field = head.fields.first(.retryAfter), !field.value.isEmpty, field.value.count <= 9 else {
            return nil
        }
        var seconds: Int64 = 0
        for i in field.value {
            guard bytes[i] >= 0x30, bytes[i] <= 0x39 else { return nil }
            seconds = seconds * 10 + Int64(bytes[i] - 0x30)
        }
        return .seconds(seconds)
    }

    private func answered() -> Outcome {
        switch head.status {
        case 200..<300: .taken(rejected: min(batch.count, Self.rejected(text)))
        case 429, 502, 503, 504: .later("status \(head.status)", after: retryAfter)
        default: .refused("status \(head.status)")
        }
    }

    /// `{"partialSuccess":{"rejectedSpans":"3",…}}`: how many spans the collector did not want.
    static func rejected(_ text: [UInt8]) -> Int {
        guard let name = text.firstRange(of: Array("\"rejectedSpans\"".utf8)) else { return 0 }
        var number = 0
        var isThere = false
        for byte in text[name.upperBound...] {
            switch byte {
            case 0x30...0x39:
                isThere = true
                number = min(number * 10 + Int(byte - 0x30), 1_000_000)
            case UInt8(ascii: ":"), UInt8(ascii: "\""), 0x20, 0x09, 0x0a, 0x0d: if isThere { return number }
            default: return number
            }
        }
        return number
    }

    func streamDrained(_ stream: Stream) {}

    func streamFailed(_ stream: Stream, _ error: SystemError) {
        if stream.state == .connecting {
            stream.close()
            self.stream = nil
            connect(error.reason)
        } else {
            ended(.later(error.reason, after: nil))
        }
    }

    func streamDeadlinePassed(_ stream: Stream) {
        if stream.state == .connecting, !addresses.isEmpty {
            stream.close()
            self.stream = nil
            connect("no answer in time")
        } else {
            ended(.later("no answer in time", after: nil))
        }
    }
}
