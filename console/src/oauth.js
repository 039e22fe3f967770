/** The parts of the library that the console uses: loaded by themselves, and only where somebody signs in. */
export {
  allowInsecureRequests, authorizationCodeGrantRequest, calculatePKCECodeChallenge, clockTolerance, generateRandomCodeVerifier, generateRandomNonce, generateRandomState,
  getValidatedIdTokenClaims, INVALID_RESPONSE, JWT_CLAIM_COMPARISON, JWT_TIMESTAMP_CHECK, None, processAuthorizationCodeResponse, processRefreshTokenResponse,
  refreshTokenGrantRequest, revocationRequest, validateAuthResponse,
} from 'oauth4webapi';
