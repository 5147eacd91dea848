// All issuers together: whose a token is, whether it was signed, and whom it names.

package import Configuration
package import Identity

package struct TokenVerifier: Sendable {
    private struct Issuer: Sendable {
        var rules: TokenRules
        var keys: SigningKeys
    }

    private var issuers: [Issuer]

    /// - Parameter read: gives the contents of a file.
    /// - Throws: `KeyError`.
    package init(
        _ settings: [Configuration.TokenIssuer], read: (String) throws -> [UInt8]
    ) throws {
        issuers = try settings.map { issuer in
            let file: [UInt8]? =
                switch issuer.key {
                case .secret: nil
                case .keyFile(let path), .jwksFile(let path): try read(path)
                }
            return Issuer(rules: TokenRules(issuer), keys: try SigningKeys(issuer, file: file))
        }
    }

    /// The files that its keys come from.
    package var files: [String] {
        issuers.compactMap { issuer in
            switch issuer.rules.settings.key {
            case .secret: nil
            case .keyFile(let path), .jwksFile(let path): path
            }
        }
    }

    /// The files of issuers that have withdrawn all of their keys.
    package var withdrawn: [String] {
        issuers.compactMap { issuer in
            if issuer.keys.keys.isEmpty, case .jwksFile(let path) = issuer.rules.settings.key { path } else { nil }
        }
    }

    /// Keys of sets that cannot be used, and why; the others of their sets count.
    package var ignored: [String] { issuers.flatMap(\.keys.ignored) }

    package enum Verdict: Equatable, Sendable {
        /// `until`: seconds since 1970; `nil`: it says no end.
        case verified(CallerClaims, until: Int64?)
        /// `retryAt`: when the same token might pass.
        case refused(CredentialFault, retryAt: Int64?)
    }

    /// - Parameter now: seconds since 1970.
    package func verify(_ bytes: [UInt8], now: Int64) -> Verdict {
        do throws(TokenRefusal) {
            let token = try ParsedToken(bytes)
            let grant = try verify(token, now: now)
            return .verified(grant.claims, until: grant.until)
        } catch {
            return .refused(error.fault, retryAt: error.retryAt)
        }
    }

    /// What is cheap to see comes first: a flood of expired tokens costs no signatures.
    private func verify(_ token: ParsedToken, now: Int64) throws(TokenRefusal) -> TokenGrant {
        let own = issuers.filter { $0.rules.mayHaveIssued(token.claims) }
        guard !own.isEmpty else { throw TokenRefusal(.issuer) }
        let taking = own.filter { issuer in
            issuer.rules.settings.algorithms.contains { $0.rawValue == token.algorithm }
        }
        guard !taking.isEmpty else { throw TokenRefusal(.algorithm) }
        var refusal = TokenRefusal(.unknownSigningKey)
        for issuer in taking {
            let keys = issuer.keys.candidates(token)
            guard !keys.isEmpty else { continue }
            do throws(TokenRefusal) {
                let grant = try issuer.rules.check(token.claims, now: now)
                if keys.contains(where: { $0.verify(token) }) { return grant }
                refusal = TokenRefusal(.signature)
            } catch {
                refusal = error
            }
        }
        throw refusal
    }
}
