// What start-up would do, short of listening and of changing anything.

package import Configuration
import Credentials
import LinuxIO

extension Node {
    /// Why a node could not start with a configuration that is right in itself.
    package static func problems(_ configuration: Configuration) -> [String] {
        var problems: [String] = []
        if let url = configuration.rateLimit?.redisURL {
            do throws(NodeStartError) { _ = try topology(of: url) } catch { problems.append(error.description) }
        }
        func check(_ key: String, _ path: String?) {
            guard let path else { return }
            do throws(SystemError) {
                try OutputFile.checkAppend(path: path)
            } catch {
                problems.append("\(key): \(path): \(error.reason): give a path that can be written")
            }
        }
        if case .file(let path) = configuration.gateway.accessLog { check("gateway.accessLog", path) }
        check("rateLimit.decisionLog", configuration.rateLimit?.decisionLog)
        if let auth = configuration.auth {
            do { try CredentialService.check(auth) } catch { problems.append("auth: \(error)") }
        }
        return problems
    }
}
