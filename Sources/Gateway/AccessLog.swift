// The access log: a line a request, gathered by each worker, written by a thread that may wait for a slow disk or pipe.

import EventLoop
import Identity
package import LinuxIO
import Primitives
import Synchronization

/// What the limiter said, for the log.
enum LimiterOutcome {
    case none
    case admitted
    case refused
    /// Admitted, though a policy in shadow mode would have refused.
    case refusedInShadow
}

package enum LogFormat: Sendable {
    case text
    case json
}

/// Takes lines from all workers and writes them in order of arrival.
package final class LogSink: Sendable {
    private struct State {
        var chunks: [[UInt8]] = []
        var bytes = 0
        var dropped = 0
        var closing = false
    }

    private let state = Mutex(State())
    private let arrived = Waiter()
    private let file: Descriptor
    private let thread = Mutex<OSThread?>(nil)

    package init(_ file: consuming Descriptor) {
        self.file = file
        let thread = OSThread(name: "access-log") { [self] in
            while writeNext() {}
        }
        self.thread.withLock { $0 = thread }
    }

    func write(_ lines: [UInt8], count: Int) {
        let accepted = state.withLock { state in
            guard state.bytes + lines.count <= DataPathLimits.logBytesMax else {
                state.dropped += count
                return false
            }
            state.bytes += lines.count
            state.chunks.append(lines)
            return true
        }
        if accepted { arrived.signal() }
    }

    private func writeNext() -> Bool {
        arrived.wait()
        let (chunks, closing) = state.withLock { state in
            let chunks = state.chunks
            state.chunks.removeAll()
            state.bytes = 0
            return (chunks, state.closing)
        }
        for chunk in chunks {
            do throws(SystemError) {
                try OutputFile.write(file, chunk.span)
            } catch {
                state.withLock { $0.dropped += 1 }
            }
        }
        return !closing
    }

    /// Lines that were lost because the file or pipe was too slow.
    package var dropped: Int { state.withLock { $0.dropped } }
    /// Bytes that wait to be written.
    package var waiting: Int { state.withLock { $0.bytes } }

    /// Writes what is left and ends.
    package func close() {
        state.withLock { $0.closing = true }
        arrived.signal()
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }
}

/// One worker's part of the access log.
final class AccessLog: EndOfTurnHandler {
    private let sink: LogSink
    private let format: LogFormat
    private let loop: Loop
    private var lines = ByteBuffer()
    private var count = 0
    private var secondOfStamp: Int64 = -1
    private var stamp = ""

    init(_ sink: LogSink, format: LogFormat, loop: Loop) {
        self.sink = sink
        self.format = format
        self.loop = loop
    }

    func write(_ client: ClientConnection, now: MonotonicTime) {
        if count == 0 { loop.atEndOfTurn(self) }
        count += 1
        renewStamp()
        switch format {
        case .text: writeText(client)
        case .json: writeJSON(client)
        }
    }

    private func renewStamp() {
        let microseconds = SystemClock.wallMicroseconds()
        guard microseconds / 1_000 != secondOfStamp else { return }
        secondOfStamp = microseconds / 1_000
        stamp = SystemClock.timestamp(microseconds: microseconds)
    }

    private func duration(_ client: ClientConnection) -> Int {
        Int(clamping: (SystemClock.monotonic() - client.startedAt).microseconds)
    }

    private func outcome(_ client: ClientConnection) -> StaticString {
        switch client.limiterOutcome {
        case .none: "-"
        case .admitted: "admitted"
        case .refused: "refused"
        case .refusedInShadow: "shadow"
        }
    }

    /// `TIME CLIENT "METHOD TARGET" STATUS RECEIVED SENT MICROSECONDS SERVICE BACKEND LIMIT`, and the identity where
    /// callers are asked for one
    private func writeText(_ client: ClientConnection) {
        lines.append(stamp)
        lines.append(" ")
        lines.append(client.client)
        lines.append(" \"")
        appendEscaped(client.logged)
        lines.append("\" ")
        lines.append(decimal: client.status)
        lines.append(" ")
        lines.append(decimal: client.requestBytes)
        lines.append(" ")
        lines.append(decimal: client.responseBytes)
        lines.append(" ")
        lines.append(decimal: duration(client))
        lines.append("us ")
        if let service = client.service {
            lines.append(service.nameBytes)
            lines.append(" ")
            if client.usedBackend { lines.append(service.backends[client.backendIndex].url) } else { lines.append("-") }
        } else {
            lines.append("- -")
        }
        lines.append(" ")
        lines.append(outcome(client))
        if client.worker.node.authenticates {
            lines.append(" ")
            if let caller = client.caller { lines.append(caller.logName) } else { lines.append("-") }
        }
        lines.append("\n")
    }

    private func writeJSON(_ client: ClientConnection) {
        lines.append("{\"time\":\"")
        lines.append(stamp)
        lines.append("\",\"client\":\"")
        lines.append(client.client)
        lines.append("\",\"request\":\"")
        appendEscaped(client.logged)
        lines.append("\",\"status\":")
        lines.append(decimal: client.status)
        lines.append(",\"received\":")
        lines.append(decimal: client.requestBytes)
        lines.append(",\"sent\":")
        lines.append(decimal: client.responseBytes)
        lines.append(",\"microseconds\":")
        lines.append(decimal: duration(client))
        if let service = client.service {
            lines.append(",\"service\":\"")
            lines.append(service.nameBytes)
            if client.usedBackend {
                lines.append("\",\"backend\":\"")
                lines.append(service.backends[client.backendIndex].url)
            }
            lines.append("\"")
        }
        lines.append(",\"limit\":\"")
        lines.append(outcome(client))
        if client.worker.node.authenticates, let caller = client.caller {
            lines.append("\",\"identity\":\"")
            lines.append(caller.logName)
        }
        lines.append("\"}\n")
    }

    /// A client's bytes must not forge a line or a field: quotes, backslashes and all but printable ASCII are escaped.
    private func appendEscaped(_ buffer: borrowing ByteBuffer) {
        let bytes = buffer.bytes
        for i in bytes.indices {
            let byte = bytes[i]
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
                lines.append(UInt8(ascii: "\\"))
                lines.append(byte)
            } else if byte >= 0x20, byte < 0x7f {
                lines.append(byte)
            } else {
                lines.append("\\u00")
                lines.append(hexadecimal: UInt64(byte), width: 2)
            }
        }
    }

    func turnEnded() {
        // Whoever has flushed it in between has left nothing.
        guard count > 0 else { return }
        sink.write(lines.array, count: count)
        lines.clear()
        count = 0
    }
}
