// Health probes: one HTTP request on a connection of its own, or the connection alone, with one deadline for all of it.

import EventLoop
import HTTP1
import Health
import LinuxIO
import Primitives

/// One probe under way.
final class Probe: StreamHandler {
    private let loop: Loop
    private let backend: Backend
    private let settings: HealthSettings
    private var addresses: [IPAddress]
    private var stream: Stream?
    private var input = ByteBuffer()
    private var head = ResponseHead()
    /// Of the answer, once its head is complete and its text matters.
    private var body: BodyDecoder?
    private var text: [UInt8] = []
    private let deadline: MonotonicTime
    private var finished: ((ProbeResult) -> Void)?

    init(_ backend: Backend, _ settings: HealthSettings, loop: Loop, finished: @escaping (ProbeResult) -> Void) {
        self.backend = backend
        self.settings = settings
        self.loop = loop
        self.finished = finished
        addresses = backend.addresses
        deadline = loop.now + settings.timeout
    }

    func start() {
        guard !addresses.isEmpty else {
            finish(.failed(.connection("\(backend.host) has no address")))
            return
        }
        let target = SocketAddress(ip: addresses.removeFirst(), port: backend.port)
        do throws(SystemError) {
            let stream = try loop.connect(to: .tcp(target), handler: self)
            // Each address gets its share of the time, so that one that is silent leaves some to the next.
            stream.deadline = loop.now + (deadline - loop.now) / Int64(addresses.count + 1)
            self.stream = stream
        } catch {
            retryOr(.connection(error.reason))
        }
    }

    private func retryOr(_ failure: HealthFailure) {
        stream?.close()
        stream = nil
        if addresses.isEmpty { finish(.failed(failure)) } else { start() }
    }

    private func finish(_ result: ProbeResult) {
        stream?.close()
        stream = nil
        let finished = self.finished
        self.finished = nil
        finished?(result)
    }

    func streamConnected(_ stream: Stream) {
        stream.deadline = deadline
        switch settings.probe {
        case .tcp: finish(.succeeded)
        case .http(let http): ask(http, stream)
        }
    }

    private func ask(_ http: HTTPProbe, _ stream: Stream) {
        var request = ByteBuffer()
        request.append("\(http.method) \(http.path) HTTP/1.1\r\n")
        var fields = [("host", backend.authority), ("user-agent", "sluice-health")]
        fields.append(("accept", "*/*"))
        fields.removeAll { name, _ in http.headers.contains { $0.name == name } }
        for (name, value) in fields + http.headers.map({ ($0.name, $0.value) }) {
            request.append("\(name): \(value)\r\n")
        }
        request.append("connection: close\r\n\r\n")
        send(request, stream)
    }

    private func send(_ buffer: borrowing ByteBuffer, _ stream: Stream) {
        if case .failed(let error) = stream.send(buffer.bytes) { finish(.failed(.connection(error.reason))) }
    }

    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes {
            switch stream.receive(into: &input, room: 4096) {
            case .bytes:
                let (result, consumed) = take(input)
                input.consume(consumed)
                if let result {
                    finish(result)
                    return
                }
            case .wouldBlock: return
            case .endOfFile:
                if let body {
                    finish(body.endOfInput == .complete ? .failed(.unexpectedBody) : .failed(.malformedAnswer))
                } else {
                    finish(.failed(.connection("closed before its answer")))
                }
                return
            case .failed(let error):
                finish(.failed(.connection(error.reason)))
                return
            }
        }
    }

    /// What the bytes so far come to, and how many of them need not be kept.
    private func take(_ buffer: borrowing ByteBuffer) -> (ProbeResult?, consumed: Int) {
        guard case .http(let http) = settings.probe else { return (.succeeded, 0) }
        let bytes = buffer.bytes
        var offset = 0
        while body == nil {
            switch head.parse(bytes.extracting(offset..<bytes.count), limits: HeadLimits()) {
            case .complete(let length):
                offset += length
                if head.status < 200 { continue }
                guard http.expects(status: head.status) else { return (.failed(.status(head.status)), offset) }
                guard http.expectBody != nil else { return (.succeeded, offset) }
                body = BodyDecoder(head.framing(requestMethod: .get), limits: HeadLimits())
            case .needMore:
                return (bytes.count > DataPathLimits.probeHeadBytesMax ? .failed(.malformedAnswer) : nil, offset)
            case .malformed: return (.failed(.malformedAnswer), offset)
            }
        }
        return takeBody(bytes, &offset, Array((http.expectBody ?? "").utf8))
    }

    private func takeBody(_ bytes: Span<UInt8>, _ offset: inout Int, _ wanted: [UInt8]) -> (ProbeResult?, Int) {
        while true {
            switch body?.next(bytes, at: offset) {
            case .data(let range):
                for i in range where text.count < DataPathLimits.probeTextBytesMax { text.append(bytes[i]) }
                offset = range.upperBound
                if !text.ranges(of: wanted).isEmpty { return (.succeeded, offset) }
                if text.count >= DataPathLimits.probeTextBytesMax { return (.failed(.unexpectedBody), offset) }
            case .end(let consumed): return (.failed(.unexpectedBody), consumed)
            case .needMore(let consumed): return (nil, consumed)
            case .malformed, nil: return (.failed(.malformedAnswer), offset)
            }
        }
    }

    func streamDrained(_ stream: Stream) {}

    func streamFailed(_ stream: Stream, _ error: SystemError) {
        if stream.state == .connecting {
            retryOr(.connection(error.reason))
        } else {
            finish(.failed(.connection(error.reason)))
        }
    }

    func streamDeadlinePassed(_ stream: Stream) {
        if stream.state == .connecting { retryOr(.timeout) } else { finish(.failed(.timeout)) }
    }
}
