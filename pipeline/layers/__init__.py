"""Building blocks: one mechanism per file, shared by models or too large for a model's file.

Letters in the shapes:

    B  rows of a batch                 N  rows of a split; in layers, ids or vectors of a row
    S  slots: columns of ids           F  fields
    D  embedding size                  H  width of a hidden layer
    G  general feature domains         C  channels (feature crosses)
    P  pairs of fields                 V  rows of a table
    R  some of them                    K  distinct values, or parts
    E  entries of all bags of a batch
"""
