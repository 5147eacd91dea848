// What start-up would do, short of listening and of changing anything.

package import Configuration
import Credentials
import LinuxIO

extension Node {
    /// Why a node could not start with a configuration that is right in itself: files that it names.
    package static func problems(_ configuration: Configuration) -> [Finding] {
        var problems: [Finding] = []
        if let url = configuration.rateLimit?.redisURL {
            do throws(NodeStartError) {
                _ = try topology(of: url)
            } catch {
                let key = "rateLimit.redisURL"
                problems.append(Finding(key, error.description.replacing("\(key): ", with: "", maxReplacements: 1)))
            }
        }
        func check(_ key: String, _ path: String?) {
            guard let path else { return }
            do throws(SystemError) {
                try OutputFile.checkAppend(path: path)
            } catch {
                problems.append(Finding(key, "\(path): \(error.reason); give a path that can be written"))
            }
        }
        if case .file(let path) = configuration.gateway.accessLog { check("gateway.accessLog", path) }
        check("rateLimit.decisionLog", configuration.rateLimit?.decisionLog)
        for (index, issuer) in (configuration.auth?.jwt ?? []).enumerated() {
            let key: String
            switch issuer.key {
            case .secret: continue
            case .keyFile: key = "keyFile"
            case .jwksFile: key = "jwksFile"
            }
            do { _ = try CredentialService.check(issuer) } catch {
                problems.append(Finding("auth.jwt[\(index)].\(key)", "\(error)"))
            }
        }
        return problems
    }

    /// Signing keys that a node would leave out; empty where it could not start.
    package static func ignoredKeys(_ configuration: Configuration) -> [String] {
        (configuration.auth?.jwt ?? []).flatMap { (try? CredentialService.check($0)) ?? [] }
    }
}
