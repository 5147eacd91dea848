// Whose turn it is while a request is on its way, and so whose clock runs.

import Configuration
import EventLoop
import Primitives

extension ClientConnection {
    /// Whether the client keeps its body back until the backend has said that it wants it.
    ///
    /// RFC 9110 §10.1.1: the backend has to say so, or to answer; a client that is silent meanwhile is not slow. One that
    /// sends all the same has its own turn again.
    private var awaitsContinue: Bool { expectsContinue && requestBytes == 0 && !responseStarted }

    /// The backend has said that the client may go on.
    func continueReceived(_ backend: BackendConnection) {
        guard expectsContinue else { return }
        expectsContinue = false
        armDeadline(of: backend)
        armRequestDeadline()
    }

    /// The backend's clock runs when it is its turn: it has the whole request, or does not take what it is sent, or is
    /// asked whether it wants the body, and the client takes what it answers.
    func armDeadline(of backend: BackendConnection) {
        guard backend.isConnected else { return }
        let backendsTurn = requestComplete || backend.stream.pendingOutput > 0 || awaitsContinue
        guard backendsTurn, stream.pendingOutput == 0 else {
            backend.stream.deadline = .distantFuture
            return
        }
        let timeouts = backend.timeouts
        backend.stream.deadline = Self.deadline(loop.now, responseStarted ? timeouts.idle : timeouts.response)
    }

    /// The client's clock runs while its body is awaited.
    func armRequestDeadline() {
        guard phase == .exchanging, stream.pendingOutput == 0 else { return }
        let now = loop.now
        let floor = worker.node.bodyFloor
        guard !requestComplete, backendTakesBody, !awaitsContinue else {
            if let floor, !requestComplete { upload.pause(total: requestBytes, at: now, floor) }
            stream.deadline = .distantFuture
            return
        }
        let silence = Self.deadline(now, worker.node.limits.bodyTimeout)
        stream.deadline = floor.map { min(silence, upload.bound(total: requestBytes, at: now, $0)) } ?? silence
    }
}
