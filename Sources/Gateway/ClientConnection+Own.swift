// Answers of the gateway's own that are no refusals: to requests that are meant for it and not for a backend. And what
// comes before a refusal of what is no request.

import EventLoop
import HTTP1
import LinuxIO
import Primitives

extension ClientConnection {
    /// Whether the request asks about the server as a whole (RFC 9110 §9.3.7). An absolute target without path and query
    /// says the same as `*` (RFC 9112 §3.2.4).
    static func isServerWide(_ head: borrowing RequestHead) -> Bool {
        switch head.form {
        case .origin: false
        case .asterisk: true
        case .absolute: head.method == .options && head.pathAndQuery.isEmpty
        }
    }

    /// What becomes of a TRACE or OPTIONS request by its Max-Forwards (RFC 9110 §7.6.2).
    enum Forwarding {
        /// It goes on, with as many hops left where the field was there.
        case onwards(hopsLeft: Int?)
        case here(OwnAnswer)
        case refused(Violation)
    }

    static func forwarding(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> Forwarding {
        switch head.maxForwards(in: bytes) {
        case .absent: .onwards(hopsLeft: nil)
        // A chain of gateways that leads back to itself ends here, and not when the head has grown too large.
        case .hops(0): .here(head.method == .trace ? .trace : .options)
        case .hops(let hops): .onwards(hopsLeft: hops - 1)
        case .malformed(let offset): .refused(Violation(.malformedMaxForwards, at: offset))
        }
    }

    func answer(_ answer: OwnAnswer, _ head: borrowing RequestHead, _ bytes: Span<UInt8>) {
        let keep = keepsConnection(nil)
        status = 200
        var output = worker.output.take()
        output.clear()
        switch answer {
        case .options: write(type: nil, ByteBuffer(), keep, to: &output)
        case .trace:
            var echo = ByteBuffer()
            TraceAnswer.write(head, bytes, to: &echo)
            write(type: "Content-Type: message/http\r\n", echo, keep, to: &output)
        }
        sendOwn(&output, keep: keep)
    }

    private func write(
        type: StaticString?, _ body: borrowing ByteBuffer, _ keep: Bool, to output: inout ByteBuffer
    ) {
        var fields = ByteBuffer()
        fields.append(worker.date())
        if let service { fields.append(service.allowLine) }
        if let type { fields.append(type) }
        if let marks { marks.appendResponseLines(to: &fields) }
        output.appendResponse(
            status: status, reason: reasonPhrase(status), fields: fields.bytes, body: body.bytes,
            options: ownOptions(keep: keep))
    }

    /// Begins an exchange whose head nobody understands, or that never came.
    func prepareRefusalWithoutHead() {
        startedAt = loop.now
        lane = nil
        responseStarted = false
        client = peer
        requestBytes = 0
        method = .get
        version = .http11
        setRequest(BodyDecoder(RequestFraming.none, limits: worker.node.headLimits))
        logged.clear()
        caller = nil
        limiterOutcome = .none
        transformed = nil
        markAnew()
    }
}
