// Health probes: one HTTP request on a connection of its own, with one deadline for all of it.

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
    private let deadline: MonotonicTime
    private var finished: ((ProbeResult) -> Void)?

    /// A health answer's head is small; more is no health answer.
    private static let answerBytesMax = 16 << 10

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
        var request = ByteBuffer()
        request.append(settings.method)
        request.append(" ")
        request.append(settings.path)
        request.append(" HTTP/1.1\r\nHost: ")
        request.append(String(backend.url.dropFirst("http://".count)))
        request.append("\r\nUser-Agent: sluice-health\r\nAccept: */*\r\n")
        request.append("Connection: close\r\n\r\n")
        send(request, stream)
    }

    private func send(_ buffer: borrowing ByteBuffer, _ stream: Stream) {
        if case .failed(let error) = stream.send(buffer.bytes) { finish(.failed(.connection(error.reason))) }
    }

    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes {
            switch stream.receive(into: &input, room: 4096) {
            case .bytes:
                if let result = judge(input) {
                    finish(result)
                    return
                }
            case .wouldBlock: return
            case .endOfFile:
                finish(.failed(.connection("closed before its answer")))
                return
            case .failed(let error):
                finish(.failed(.connection(error.reason)))
                return
            }
        }
    }

    private func judge(_ buffer: borrowing ByteBuffer) -> ProbeResult? {
        var offset = 0
        while true {
            let bytes = buffer.bytes.extracting(offset..<buffer.count)
            switch head.parse(bytes, limits: HeadLimits()) {
            case .complete(let length):
                if head.status < 200 {
                    offset += length
                    continue
                }
                return settings.expects(status: head.status) ? .succeeded : .failed(.status(head.status))
            case .needMore: return buffer.count > Self.answerBytesMax ? .failed(.malformedAnswer) : nil
            case .malformed: return .failed(.malformedAnswer)
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
