"""metainfo"""
