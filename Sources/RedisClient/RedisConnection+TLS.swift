// The same connection inside TLS: what comes is decrypted before it is read, what goes is encrypted after it is written.

import EventLoop
import LinuxIO
import TLS

extension RedisConnection {
    func beginTLS(_ client: TLSClient) {
        let host: String
        switch endpoint.location {
        case .tcp(let name, _): host = endpoint.serverName ?? name
        case .unix: host = endpoint.serverName ?? "localhost"
        }
        do throws(TLSSetupError) {
            session = try TLSSession(client, host: host)
        } catch {
            lost(.untrusted(error.description))
            return
        }
        shakeHands()
    }

    /// Returns whether the server has proved who it is, and may be talked to.
    @discardableResult
    private func shakeHands() -> Bool {
        guard let session else { return false }
        let outcome = session.handshake()
        // Also a refusal is told to the peer.
        let sent = sendSealed()
        switch outcome {
        case .failed(let reason):
            lost(.untrusted(reason))
            return false
        case .pending:
            if case .failed(let error) = sent { lost(.lost(error.reason)) }
            return false
        case .established:
            isSecured = true
            greet()
            return true
        }
    }

    /// Bytes have come into the session.
    func unseal(_ session: TLSSession, of stream: Stream) {
        feed(session, input)
        if !isSecured, !shakeHands() { return }
        // All of it: what stays inside the session makes no event.
        while self.stream === stream {
            plain.clear()
            switch session.read(into: &plain) {
            case .bytes:
                feed(plain)
                takeReplies(of: stream)
            case .needsMore:
                if let reason = session.writeWaiting() {
                    lost(.lost(reason))
                } else if case .failed(let error) = sendSealed() {
                    lost(.lost(error.reason))
                }
                return
            case .ended: lost(.lost("the server closed the connection"))
            case .failed(let reason):
                // With TLS 1.3 the server looks at the client's certificate when the client takes itself for accepted.
                lost(isReady ? .lost(reason) : .untrusted(reason))
            }
        }
    }

    private func feed(_ session: TLSSession, _ buffer: borrowing ByteBuffer) { session.feed(buffer.bytes) }

    /// Sends plain text through the session.
    func seal(_ session: TLSSession, _ output: borrowing ByteBuffer) -> IOOutcome {
        if session.write(output.bytes) != nil { return .failed(.closedByPeer) }
        return sendSealed()
    }

    /// Sends what the session has for the peer.
    private func sendSealed() -> IOOutcome {
        guard let session, let stream else { return .bytes(0) }
        sealed.clear()
        session.takeOutput(into: &sealed)
        return sealed.isEmpty ? .bytes(0) : send(sealed, stream)
    }
}
