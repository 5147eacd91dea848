import LinuxIO
import Synchronization
import TestSupport

/// Clients that ask every node without a pause, until they are stopped.
final class Traffic: Sendable {
    private struct State {
        var stopped = false
        var statuses: [Int: Int] = [:]
        var asked = 0
    }
    private let state = Mutex(State())
    private let threads = Mutex<[OSThread]>([])

    init(_ nodes: [SluiceNode]) {
        let addresses = nodes.map(\.address)
        for address in addresses {
            let thread = OSThread(name: "client") { [self] in
                while !state.withLock(\.stopped) {
                    guard let wire = try? Wire.connect(to: address) else { continue }
                    while !state.withLock(\.stopped) {
                        guard (try? wire.send("GET /x HTTP/1.1\r\nHost: test\r\n\r\n")) != nil,
                            let answer = try? wire.readResponse()
                        else {
                            count(0)
                            break
                        }
                        count(answer.status)
                    }
                    wire.close()
                }
            }
            threads.withLock { $0.append(thread) }
        }
    }

    private func count(_ status: Int) {
        state.withLock {
            $0.statuses[status, default: 0] += 1
            $0.asked += 1
        }
    }

    var asked: Int { state.withLock(\.asked) }
    /// Requests that were not answered by 200.
    var failed: [Int: Int] { state.withLock { $0.statuses.filter { $0.key != 200 } } }
    func forget() { state.withLock { $0.statuses = [:] } }

    func stop() {
        state.withLock { $0.stopped = true }
        for thread in threads.withLock({ $0 }) { thread.join() }
    }
}

extension SluiceNode {
    /// What it shows of a backend, as JSON.
    func row(of url: String) throws -> Substring {
        let rows = try admin("/api/backends").text.split(separator: "{\"available\":")
        return rows.first { $0.contains("\"url\":\"\(url)\"") } ?? ""
    }

    /// Whether it shows a backend in this state.
    func calls(_ url: String, _ state: String) throws -> Bool { try row(of: url).contains("\"state\":\"\(state)\"") }

    /// Whether it sends requests there.
    func uses(_ url: String) throws -> Bool { try row(of: url).hasPrefix("true") }

    func isReached() throws -> Bool { try admin("/readyz").text.contains("\"cluster\":\"reached\"") }
}
