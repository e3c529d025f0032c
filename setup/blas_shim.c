/* MLX's Linux CPU wheel brings the reference BLAS, ten times slower than it need be. libmlx calls three of its
 * functions; this library gives them to scipy-openblas32, whose own symbols carry a prefix. It is loaded before MLX
 * (scripts/snaketune/engines/mlx/capabilities.py), so that the dynamic linker finds these first.
 */
typedef int blasint;

#define ARGUMENTS(scalar, element)                                                                                     \
    blasint order, blasint trans_a, blasint trans_b, blasint m, blasint n, blasint k, scalar alpha, const element *a,  \
        blasint lda, const element *b, blasint ldb, scalar beta, element *c, blasint ldc
#define FORWARD(name, scalar, element)                                                                                 \
    void scipy_##name(ARGUMENTS(scalar, element));                                                                     \
    void name(ARGUMENTS(scalar, element)) {                                                                            \
        scipy_##name(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                           \
    }

FORWARD(cblas_sgemm, float, float)
FORWARD(cblas_dgemm, double, double)
FORWARD(cblas_cgemm, const void *, void)
